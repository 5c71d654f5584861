"""What MONAI Label asks for at import and this package leaves out, lent to the one module that asks.

MONAI Label 0.8.5 imports packages for features that this app never reaches. Installing them would cost
hundreds of megabytes or break what is used:

    itk            monailabel.transform.writer          0.9 GB to write an image: SimpleITK, here anyway, does it
    pydicom_seg    monailabel.datastore.utils.convert   needs pydicom 2; highdicom reads and writes DICOM SEG
    girder_client  monailabel.datastore.dsa             client of a pathology archive

A stand-in is lent while its module is being imported and withdrawn afterwards, so that nobody else takes
it for the real package: MONAI, for one, chooses its readers by whether ``import itk`` succeeds. A package
that is installed and works is used as it is.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from deepgrow3d_app.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def prepare_imports() -> None:
    """Make ``import monailabel.app`` work with the packages that are installed.

    Costs nothing by itself: it imports neither MONAI Label nor what stands in. Idempotent.
    """
    if not any(isinstance(finder, _LendingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LendingFinder())


def check_settings() -> None:
    """Read the ``MONAI_LABEL_...`` variables, which MONAI Label does as it is imported.

    Raises:
        InvalidRequest: one that cannot be used.
    """
    try:
        importlib.import_module("monailabel.config")
    except ValidationError as error:
        faults = "; ".join(f"{fault['loc'][0]} is {fault['input']!r}: {fault['msg']}" for fault in error.errors())
        raise InvalidRequest(f"MONAI Label's settings cannot be used. {faults}.") from error
    except SettingsError as error:  # it names the variable
        raise InvalidRequest(
            f"MONAI Label's settings cannot be used: {error}. Write its lists and tables in JSON."
        ) from error


class _Absent(ModuleType):
    """A package that imports, and says what is missing as soon as anything in it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system itself asks for
            raise AttributeError(name)
        raise ImportError(f"'{self.__name__}.{name}' is not available: DeepGrow 3D runs without '{self.__name__}'.")


def _itk_on_simpleitk() -> ModuleType:
    """The four functions of ``itk`` that ``monailabel.transform.writer.write_itk`` calls."""
    import SimpleITK as sitk

    def matrix_from_array(direction: NDArray[np.float64]) -> list[float]:
        return [float(value) for value in direction.flat]

    def size(image: sitk.Image) -> tuple[int, ...]:
        return tuple(image.GetSize())

    def imwrite(image: sitk.Image, file: str | Path, compression: bool = False) -> None:
        sitk.WriteImage(image, str(file), useCompression=compression)

    module = _Absent("itk")
    module.__dict__.update(
        image_from_array=sitk.GetImageFromArray, matrix_from_array=matrix_from_array, size=size, imwrite=imwrite
    )
    return module


_STAND_INS: dict[str, tuple[str, Callable[[], ModuleType]]] = {
    "monailabel.transform.writer": ("itk", _itk_on_simpleitk),
    "monailabel.datastore.utils.convert": ("pydicom_seg", lambda: _Absent("pydicom_seg")),
    "monailabel.datastore.dsa": ("girder_client", lambda: _Absent("girder_client")),
}


class _LendingFinder(importlib.abc.MetaPathFinder):
    """Finds the three modules of MONAI Label above as usual, but has them loaded by ``_LendingLoader``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _STAND_INS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LendingLoader(spec.loader, *_STAND_INS[fullname])
        return spec


class _LendingLoader(importlib.abc.Loader):
    """Loads a module as ``loader`` does, while ``package`` can be imported even where it is not installed."""

    def __init__(self, loader: importlib.abc.Loader, package: str, stand_in: Callable[[], ModuleType]) -> None:
        self._loader = loader
        self._package = package
        self._stand_in = stand_in

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if _can_import(self._package):
            self._loader.exec_module(module)
            return
        importlib.import_module("monai.data")  # looks for itk itself, and must not find the stand-in
        sys.modules[self._package] = self._stand_in()
        try:
            self._loader.exec_module(module)
        finally:
            del sys.modules[self._package]


def _can_import(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True
