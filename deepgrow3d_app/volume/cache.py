"""Decoded volumes, on disk or in memory, so that no click decodes a file twice."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from deepgrow3d_app.volume.decoded_folder import DecodedFolder
from deepgrow3d_app.volume.files import read_volume
from deepgrow3d_app.volume.signature import Signature, signature_of
from deepgrow3d_app.volume.volume import Volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """A decoded volume in memory, and what its file looked like when it was read."""

    signature: Signature
    volume: Volume


class VolumeCache:
    """The volumes used last; safe to share between threads.

    With a folder, a volume is decoded into it and handed out as a map of its entry: volumes take no memory of the
    process, and are found again after a restart. What the folder cannot keep (a full disk, no permission), and
    every volume where there is no folder, is kept in memory.

    A file that was replaced is read anew. While one thread decodes a file, others that ask for it
    wait for the result; different files are decoded side by side. Errors are not kept: the next
    call tries again.

    Args:
        max_bytes: bound on the sum of the arrays kept in memory; a larger volume is returned but not kept.
        read: called with the real path; the default reads every format of :mod:`files`.
        folder: where decoded volumes are kept on disk; it has a bound of its own.
    """

    def __init__(
        self, max_bytes: int, read: Callable[[str], Volume] = read_volume, folder: DecodedFolder | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self._read = read
        self._folder = folder
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # by real path, least recently used first
        self._reading: dict[tuple[str, Signature], Future[Volume]] = {}
        self._prefetching = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Size of the arrays that are kept in memory now."""
        with self._lock:
            return self._n_bytes()

    def get(self, path: str | os.PathLike[str]) -> Volume:
        """The volume at ``path``, decoded once.

        Raises:
            UnreadableVolume, UnsupportedVolume: whatever ``read`` raises, to everyone who waited for it.
        """
        real_path = os.path.realpath(path)
        signature = signature_of(real_path)
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

    def prefetch(self, path: str | os.PathLike[str]) -> None:
        """Begin to decode the volume at ``path``, which somebody is likely to ask for soon, and return at once.

        One at a time: as long as that takes, further calls do nothing. Errors are left for :meth:`get` to raise.
        """
        if self._prefetching.acquire(blocking=False):
            threading.Thread(target=self._prefetch, args=(path,), name="prefetch", daemon=True).start()

    def forget(self, path: str | os.PathLike[str]) -> None:
        """Forget the volume at ``path``, which nobody will ask for again; the file may be gone already."""
        real_path = os.path.realpath(path)
        with self._lock:
            self._kept.pop(real_path, None)
        if self._folder is not None:
            self._folder.remove(real_path)

    def clear(self) -> None:
        """Forget every volume, on disk too; those who hold one keep it."""
        with self._lock:
            self._kept.clear()
        if self._folder is not None:
            self._folder.clear()

    def _prefetch(self, path: str | os.PathLike[str]) -> None:
        try:
            self.get(path)
        except Exception as error:  # noqa: BLE001 - whoever asks for the volume is told
            logger.debug("%s was not prefetched: %s", os.path.basename(path), error)
        finally:
            self._prefetching.release()

    def _fill(self, reading: Future[Volume], real_path: str, signature: Signature) -> None:
        """Find or decode, keep, and release those who wait, in this order: whoever comes later finds it kept."""
        try:
            volume, is_to_keep = self._found_or_decoded(real_path, signature)
        except BaseException as error:  # noqa: BLE001 - it is raised again by result(), here and to those who wait
            with self._lock:
                del self._reading[real_path, signature]
            reading.set_exception(error)
            return
        with self._lock:
            del self._reading[real_path, signature]
            if is_to_keep:
                self._keep(real_path, Kept(signature, volume))
            else:
                self._kept.pop(real_path, None)
        reading.set_result(volume)

    def _found_or_decoded(self, real_path: str, signature: Signature) -> tuple[Volume, bool]:
        """(the volume, whether it is to be kept in memory)."""
        stored = self._folder.load(real_path, signature) if self._folder is not None and signature else None
        if stored is not None:
            return stored, False
        volume = self._read(real_path)
        # Replaced while it was read: what came out may be neither version, so it is not kept.
        if not signature or signature_of(real_path) != signature:
            return volume, False
        if self._folder is None or not self._folder.store(real_path, signature, volume):
            return volume, True
        if signature_of(real_path) != signature:  # deleted and forgotten while it was stored: nothing may stay behind
            self._folder.remove(real_path)
            return volume, False
        stored = self._folder.load(real_path, signature)  # None where others needed its room at once
        return (volume, True) if stored is None else (stored, False)

    def _keep(self, real_path: str, kept: Kept) -> None:
        self._kept.pop(real_path, None)
        if kept.volume.array.nbytes > self._max_bytes:
            return
        self._kept[real_path] = kept
        while self._n_bytes() > self._max_bytes:
            self._kept.popitem(last=False)

    def _n_bytes(self) -> int:
        return sum(kept.volume.array.nbytes for kept in self._kept.values())
