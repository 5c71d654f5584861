"""Runs in the process of MONAI Label's own server: ``monailabel start_server`` after what it cannot import is replaced.

What is lent here is never used by clicks: plots (torchvision), pathology (shapely), a cache that no radiology model
asks for (expiring_dict), and the sample app's trainers, which import TensorBoard and ignite. What
``deepgrow3d_app.serving`` lends, it lends here as well. A package that is installed is used as it is.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

LENT_WHERE_ABSENT = ("expiring_dict", "shapely", "torchvision")
REPLACED = ("lib.trainers",)


class Placeholder(ModuleType):
    """A module in which every name is an empty class."""

    __path__: list[str] = []  # noqa: RUF012 - what makes it a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system itself asks for
            raise AttributeError(name)
        return type(name, (), {})


class PlaceholderFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``names`` and everything below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if any(fullname == name or fullname.startswith(f"{name}.") for name in self.names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return Placeholder(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: a placeholder is ready as it is made."""


def can_import(name: str) -> bool:
    """Whether it is installed and works: a torchvision for another torch raises RuntimeError."""
    try:
        importlib.import_module(name)
    except (ImportError, RuntimeError):
        return False
    return True


def main() -> None:
    """Start the server that the command line asks for."""
    del sys.path[0]  # the folder of this file: its modules are none of the server's business
    # MONAI looks for torchvision itself, and must not find the stand-in.
    import monai  # noqa: F401

    import deepgrow3d_app.serving  # noqa: F401

    absent = [name for name in LENT_WHERE_ABSENT if not can_import(name)]
    sys.meta_path.insert(0, PlaceholderFinder((*absent, *REPLACED)))
    from monailabel.main import Main

    Main(actions=("start_server",)).run()


if __name__ == "__main__":
    main()
