"""Decoded volumes on disk, mapped into memory: they outlive the process and take none of its memory.

An entry is one file: a line of JSON, filled up with spaces to whole pages, then the voxels as they lie in memory.
Being one file, it appears, is replaced and vanishes at once, also where several processes share the folder, and
whoever has opened it holds the grid and the voxels of one and the same volume.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from deepgrow3d_app.errors import UnsupportedVolume
from deepgrow3d_app.volume.signature import Signature
from deepgrow3d_app.volume.volume import Volume

logger = logging.getLogger(__name__)

FORMAT = 2
"""Raise it when the layout changes, or what a reader makes of a file: every entry is then decoded anew."""

ENTRY_SUFFIX = ".voxels"
PARTIAL_SUFFIX = ".part"
PAGE_BYTES = 4096
MAX_HEAD_BYTES = 1 << 20
KEPT_FREE_BYTES = 1 << 28
"""Left on the disk for what matters more than a cache: labels, sessions."""
ABANDONED_S = 3600
"""What is still not complete this long after it was last written never will be."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A decoded volume in the folder; entries sort by when they were last used."""

    used_ns: int
    n_bytes: int
    file: Path


class DecodedFolder:
    """A folder of decoded volumes, bounded in bytes; safe to share between threads and between processes.

    It is a cache: whatever goes wrong in it (a full disk, a damaged entry) means that a volume is not there, and
    is never raised. Volumes that were handed out stay as they are when their entry is removed or replaced.

    Args:
        path: made when it is first needed, with its entries, for nobody but the user of the process. On a disk of
            this machine: a mapped file that another machine removes would take the process with it.
        max_bytes: bound on all entries together; what was not used for longest is removed. A larger volume is
            not kept.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._storing = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Size of all entries."""
        return sum(entry.n_bytes for entry in self._entries())

    def load(self, source: str, signature: Signature) -> Volume | None:
        """What was decoded from ``source`` when it looked like ``signature``; ``None`` where that is not here.

        The array is a read-only map of the entry.
        """
        entry = self._entry(source)
        try:
            with entry.open("rb") as file:
                volume = _mapped(file, signature)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, UnsupportedVolume) as error:
            logger.info("The decoded copy of %s cannot be used: %s", os.path.basename(source), error)
            return None
        if volume is not None:
            with contextlib.suppress(OSError):  # removed meanwhile, or not ours to write
                _touch(entry)
        return volume

    def store(self, source: str, signature: Signature, volume: Volume) -> bool:
        """Keep ``volume``, decoded from ``source`` when it looked like ``signature``; returns whether it is kept.

        Args:
            source: the real path of a file or folder.
            signature: of ``source``.
            volume: all its voxels are read.
        """
        head = _head(source, signature, volume)
        n_bytes = len(head) + volume.array.nbytes
        if n_bytes > self._max_bytes:
            return False
        partial = self.path / f".{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
        try:
            with self._storing:  # together they might not fit
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.remove(source)
                self._make_room(n_bytes)
                try:
                    with open(partial, "xb", opener=_private) as file:
                        file.write(head)
                        file.write(np.ravel(volume.array, order=_order(volume)).data)
                    _touch(partial)
                    os.replace(partial, self._entry(source))
                finally:
                    partial.unlink(missing_ok=True)
                self._make_room(0)  # another process may have stored something at the same time
        except OSError as error:
            logger.warning("The decoded copy of %s is not kept on disk: %s", os.path.basename(source), error)
            return False
        return True

    def remove(self, source: str) -> None:
        """Remove what was decoded from ``source``, if it is here."""
        with contextlib.suppress(OSError):
            self._entry(source).unlink()

    def remove_orphans(self) -> int:
        """Remove entries whose source is gone, as it may while no server runs; returns how many."""
        removed = 0
        for entry in list(self._entries()):
            try:
                with entry.file.open("rb") as file:
                    is_orphan = not os.path.lexists(_known(file)["source"])
            except (ValueError, KeyError, TypeError):
                is_orphan = True  # nobody's
            except OSError:
                continue
            if is_orphan:
                with contextlib.suppress(OSError):
                    entry.file.unlink()
                    removed += 1
        return removed

    def clear(self) -> None:
        """Remove every entry."""
        for entry in list(self._entries()):
            with contextlib.suppress(OSError):
                entry.file.unlink()

    def _entry(self, source: str) -> Path:
        return self.path / (hashlib.sha256(os.fsencode(source)).hexdigest() + ENTRY_SUFFIX)

    def _entries(self) -> Iterator[Entry]:
        for file, status in self._files(ENTRY_SUFFIX):
            yield Entry(status.st_mtime_ns, status.st_size, file)

    def _files(self, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
        """Files whose names end with ``suffix``; others that may lie in the folder are not ours."""
        with contextlib.suppress(OSError), os.scandir(self.path) as found:
            for file in found:
                if file.name.endswith(suffix):
                    with contextlib.suppress(OSError):  # removed meanwhile
                        yield Path(file.path), file.stat()

    def _make_room(self, n_bytes: int) -> None:
        """Remove what was not used for longest until ``n_bytes`` more fit the bound and the disk.

        Raises:
            OSError: the disk has no room for them.
        """
        for partial, status in self._files(PARTIAL_SUFFIX):
            if status.st_mtime + ABANDONED_S < time.time():
                partial.unlink(missing_ok=True)
        entries = sorted(self._entries())
        total = sum(entry.n_bytes for entry in entries)
        for entry in entries:
            if total + n_bytes <= self._max_bytes and self._has_room_on_disk(n_bytes):
                return
            entry.file.unlink(missing_ok=True)
            total -= entry.n_bytes
        if n_bytes and not self._has_room_on_disk(n_bytes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _has_room_on_disk(self, n_bytes: int) -> bool:
        return shutil.disk_usage(self.path).free >= n_bytes + KEPT_FREE_BYTES


def _head(source: str, signature: Signature, volume: Volume) -> bytes:
    """The first line of an entry: whole pages, so that the voxels begin with one."""
    known = {
        "format": FORMAT,
        "source": source,
        "signature": _digest(signature),
        "shape": volume.shape,
        "order": _order(volume),
        "affine": volume.affine.tolist(),
        "slope": volume.slope,
        "intercept": volume.intercept,
        "name": volume.name,
        "modality": volume.modality,
        # Found out here, where all voxels are in memory: asking a mapped volume would read it from disk.
        "holds_hu": volume.is_ct,
    }
    line = json.dumps(known).encode("ascii")
    return line.ljust((len(line) // PAGE_BYTES + 1) * PAGE_BYTES - 1) + b"\n"


def _known(file: BinaryIO) -> Any:
    """What the first line of an entry says; leaves ``file`` at the first voxel."""
    return json.loads(file.readline(MAX_HEAD_BYTES))


def _mapped(file: BinaryIO, signature: Signature) -> Volume | None:
    """The volume in the entry ``file``; ``None`` where it was decoded from another version of its source.

    Raises:
        OSError, ValueError, KeyError, TypeError, UnsupportedVolume: the entry is damaged.
    """
    known = _known(file)
    if (known["format"], known["signature"]) != (FORMAT, _digest(signature)):
        return None
    start = file.tell()
    i, j, k = known["shape"]
    n_expected = start + i * j * k * np.dtype(np.int16).itemsize
    # To touch a page beyond the end of a file would kill the process.
    if (n_there := os.fstat(file.fileno()).st_size) != n_expected:
        raise ValueError(f"it has {n_there} bytes, not {n_expected}")
    mapped = np.memmap(file, np.int16, "r", start, (i, j, k), known["order"])
    return Volume(
        np.asarray(mapped),  # a plain array: those of NumPy's subclass are slower to slice
        np.array(known["affine"], np.float64),
        float(known["slope"]),
        float(known["intercept"]),
        known["name"],
        known["modality"],
        bool(known["holds_hu"]),
    )


def _order(volume: Volume) -> Literal["F", "C"]:
    """Which axis of the array is fastest in memory: the first (``F``, as files have it) or the last (``C``)."""
    return "F" if volume.array.flags.f_contiguous else "C"


def _digest(signature: Signature) -> str:
    """A series of many files has a long signature."""
    return hashlib.sha256(repr(signature).encode()).hexdigest()


def _private(path: str, flags: int) -> int:
    """How to open a file that only the user of the process may read: images of patients."""
    return os.open(path, flags, 0o600)


def _touch(file: Path) -> None:
    """Note that ``file`` was used, by a finer clock than the file system's own."""
    now_ns = time.time_ns()
    os.utime(file, ns=(now_ns, now_ns))
