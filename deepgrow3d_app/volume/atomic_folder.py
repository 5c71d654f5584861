"""A folder that appears under its name when it is complete, and not before."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

PARTIAL_SUFFIX = ".part"


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path``, which takes the place of ``path`` at the end of the block.

    An error in the block removes it and leaves ``path`` as it was; one of the file system names ``path``, and not
    this folder. A process that is killed leaves it under a hidden name; :func:`remove_partial_folders` clears that
    away.
    """
    partial = _hidden_beside(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            old = _hidden_beside(path)  # os.replace wants an empty target
            os.replace(path, old)
            os.replace(partial, path)
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(str(partial))):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_partial_folders(parent: Path) -> None:
    """Remove what killed processes left in ``parent``; nobody may be writing there."""
    for partial in parent.glob(f".*{PARTIAL_SUFFIX}"):
        shutil.rmtree(partial, ignore_errors=True)


def _hidden_beside(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
