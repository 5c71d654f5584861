"""Telling whether a file was replaced since it was last looked at."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

FileVersion = tuple[int, ...]


def file_version(path: Path) -> FileVersion:
    """(time of change in ns, size, inode) of ``path``; () where there is nothing to look at."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def content_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of what ``path`` holds, in hexadecimal digits; it is read once for each version of the file."""
    return _digest(path, algorithm, file_version(path))


@lru_cache(maxsize=1024)
def _digest(path: Path, algorithm: str, version: FileVersion) -> str:
    del version  # tells one content from another
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
