"""Decoded volumes in memory, so that no click decodes a file twice."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from deepgrow3d_app.volume.files import read_volume
from deepgrow3d_app.volume.volume import Volume

Signature = tuple[tuple[str, int, int], ...]
"""(name, time of change in ns, size in bytes) of a file, or of each file in a folder."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A decoded volume, and what its file looked like when it was read."""

    signature: Signature
    volume: Volume


class VolumeCache:
    """The volumes read last, as many as fit ``max_bytes``; safe to share between threads.

    A file that was replaced is read anew. While one thread decodes a file, others that ask for it
    wait for the result; different files are decoded side by side. Errors are not kept: the next
    call tries again.

    Args:
        max_bytes: bound on the sum of the kept arrays; a larger volume is returned but not kept.
        read: called with the real path; the default reads every format of :mod:`files`.
    """

    def __init__(self, max_bytes: int, read: Callable[[str], Volume] = read_volume) -> None:
        self._max_bytes = max_bytes
        self._read = read
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # by real path, least recently used first
        self._reading: dict[tuple[str, Signature], Future[Volume]] = {}

    @property
    def n_bytes(self) -> int:
        """Size of the arrays that are kept now."""
        with self._lock:
            return self._n_bytes()

    def get(self, path: str | os.PathLike[str]) -> Volume:
        """The volume at ``path``, decoded once.

        Raises:
            UnreadableVolume, UnsupportedVolume: whatever ``read`` raises, to everyone who waited for it.
        """
        real_path = os.path.realpath(path)
        signature = _signature(real_path)
        key = (real_path, signature)
        with self._lock:
            kept = self._kept.get(real_path)
            if kept is not None and kept.signature == signature:
                self._kept.move_to_end(real_path)
                return kept.volume
            reading = self._reading.get(key)
            is_reader = reading is None
            if reading is None:
                reading = self._reading[key] = Future()
        if is_reader:
            self._fill(reading, real_path, signature)
        return reading.result()

    def forget(self, path: str | os.PathLike[str]) -> None:
        """Forget the volume at ``path``, which nobody will ask for again; the file may be gone already."""
        with self._lock:
            self._kept.pop(os.path.realpath(path), None)

    def clear(self) -> None:
        """Forget every volume; those who hold one keep it."""
        with self._lock:
            self._kept.clear()

    def _fill(self, reading: Future[Volume], real_path: str, signature: Signature) -> None:
        """Decode, keep, and release those who wait, in this order: whoever comes later finds it kept."""
        try:
            volume = self._read(real_path)
            # Replaced while it was read: what came out may be neither version, so it is not kept.
            is_current = bool(signature) and _signature(real_path) == signature
        except BaseException as error:  # noqa: BLE001 - it is raised again by result(), here and to those who wait
            with self._lock:
                del self._reading[real_path, signature]
            reading.set_exception(error)
            return
        with self._lock:
            del self._reading[real_path, signature]
            if is_current:
                self._keep(real_path, Kept(signature, volume))
        reading.set_result(volume)

    def _keep(self, real_path: str, kept: Kept) -> None:
        self._kept.pop(real_path, None)
        if kept.volume.array.nbytes > self._max_bytes:
            return
        self._kept[real_path] = kept
        while self._n_bytes() > self._max_bytes:
            self._kept.popitem(last=False)

    def _n_bytes(self) -> int:
        return sum(kept.volume.array.nbytes for kept in self._kept.values())


def _signature(real_path: str) -> Signature:
    """What tells whether a file, or any file of a folder, was replaced; () where it cannot be looked at."""
    try:
        if not os.path.isdir(real_path):
            status = os.stat(real_path)
            return (("", status.st_mtime_ns, status.st_size),)
        with os.scandir(real_path) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
        return tuple(sorted((name, status.st_mtime_ns, status.st_size) for name, status in found))
    except OSError:
        return ()
