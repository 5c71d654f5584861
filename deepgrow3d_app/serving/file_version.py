"""Telling whether a file was replaced since it was last looked at."""

from __future__ import annotations

from pathlib import Path

FileVersion = tuple[int, ...]


def file_version(path: Path) -> FileVersion:
    """(time of change in ns, size, inode) of ``path``; () where there is nothing to look at."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino
