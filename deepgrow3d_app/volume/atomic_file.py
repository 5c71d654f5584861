"""Files that change all at once: whoever reads sees the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

COPY_BYTES = 1 << 20


@contextlib.contextmanager
def written_beside(path: Path, content: BinaryIO) -> Iterator[Path]:
    """The rest of ``content`` in a file in the folder of ``path``, safely on disk, to be moved to ``path``.

    It is gone after the block where it was not moved. No watcher of the folder takes it for an image. An error of the
    file system names ``path``, and not this file.
    """
    # A plain open, not tempfile, so that the file gets the permissions that any new file here gets.
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            shutil.copyfileobj(content, file, COPY_BYTES)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def replace_file(path: Path, content: BinaryIO) -> None:
    """Give ``path`` the rest of ``content``; an error leaves it as it was, and nothing beside it."""
    with written_beside(path, content) as partial:
        os.replace(partial, path)
    settle_folder(path.parent)


def settle_folder(folder: Path) -> None:
    """Return when the names in ``folder`` are safely on disk."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
