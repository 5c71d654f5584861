"""Telling whether an image changed since it was last looked at, without reading it."""

from __future__ import annotations

import os

Signature = tuple[tuple[str, int, int, int], ...]
"""(name, when its content changed, when anything of it changed, size in bytes) of a file, or of each in a folder.

Times are in ns. The second one cannot be set: a copy that was given the times of the file that it replaces, as
``cp -p`` and ``rsync`` do, is told from it even if it has the same size.
"""


def signature_of(path: str | os.PathLike[str]) -> Signature:
    """The signature of the file at ``path``, or of the files directly in that folder; () where it cannot be seen."""
    try:
        if not os.path.isdir(path):
            return (_of_one("", os.stat(path)),)
        with os.scandir(path) as entries:
            return tuple(sorted(_of_one(entry.name, entry.stat()) for entry in entries if entry.is_file()))
    except OSError:
        return ()


def _of_one(name: str, status: os.stat_result) -> tuple[str, int, int, int]:
    return name, status.st_mtime_ns, status.st_ctime_ns, status.st_size
