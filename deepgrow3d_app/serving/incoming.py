"""What is on its way into the studies or out of them, and what killed servers left of it: patients' data all of it.

A server removes what it does not finish. One that was killed cannot; whichever starts next does it, by age: another
server may share the folders, and be writing there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ABANDONED_S = 3600
"""What was not written to for so long never will be again."""

PARTIAL_NAME = re.compile(r"\.[0-9a-f]{32}\.part")
"""Of what ``atomic_file`` and ``atomic_folder`` have not completed yet: nobody else calls a file so."""


class Incoming:
    """The folder for what is on its way.

    Args:
        folder: made where it is missing; ``None`` for the system's temporary folder, where nothing else may be written.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """An empty folder, for this server's eyes only, that is gone after the block."""
        self._make_again()
        with tempfile.TemporaryDirectory(prefix="deepgrow3d-", dir=self._folder) as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def new_file(self, extension: str) -> Iterator[Path]:
        """An empty file, for this server's eyes only: whoever asked removes it, an error in the block does too."""
        self._make_again()
        descriptor, name = tempfile.mkstemp(extension, "deepgrow3d-", self._folder)
        os.close(descriptor)
        try:
            yield Path(name)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def remove_abandoned(self) -> None:
        """Remove what nobody works on any more."""
        if self._folder is not None and self._folder.is_dir():
            for path in self._folder.iterdir():
                remove_if_abandoned(path)

    def _make_again(self) -> None:
        if self._folder is not None:
            make_again(self._folder)


class Leftovers:
    """What killed servers left half-written in folders, wherever below them.

    It is looked for once: no server leaves any behind while it lives.

    Args:
        folders: where to look.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._found: set[Path] | None = None

    def remove_abandoned(self) -> None:
        """Remove what is old enough; what is not will be, when this is called again."""
        if self._found is None:
            self._found = {path for folder in self._folders for path in _partials(folder)}
        for path in self._found:
            remove_if_abandoned(path)
        self._found = {path for path in self._found if os.path.lexists(path)}


def make_again(folder: Path) -> None:
    """Make ``folder``, and the one around it, where somebody cleared them away while the server runs.

    Nothing further up is made: where the studies' disk is gone, nothing may take its place.
    """
    for missing in (folder.parent, folder):
        missing.mkdir(exist_ok=True)


def is_abandoned(path: Path) -> bool:
    """Whether nothing was written to ``path``, nor to anything in it where it is a folder, for ``ABANDONED_S``."""
    try:
        last_written = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
    except OSError:  # somebody else removed it, or is at work in it
        return False
    return last_written + ABANDONED_S < time.time()


def remove_if_abandoned(path: Path) -> None:
    """Remove the file or folder ``path`` where nobody works on it any more."""
    if is_abandoned(path):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _partials(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files) if PARTIAL_NAME.fullmatch(name))
