"""Masks of earlier clicks, kept so that the next click can start from them.

Viewers send all clicks of a structure at every request, so the server needs no session to answer;
but the network improves a mask better than it starts over. What was answered to some of the clicks
is therefore remembered, within a bound, and may be forgotten at any time without harm.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.volume.geometry import Shape
from deepgrow3d_app.volume.volume import Mask

OVERHEAD_BYTES = 1024
"""What an entry costs besides its voxels, roughly: its clicks, keys and bookkeeping."""

Clicks = frozenset[Click]


@dataclass(frozen=True, slots=True)
class Subject:
    """What clicks are about: clicks on different subjects never share masks.

    Attributes:
        image: the path of the image, or another name that no second image has.
        image_version: changes whenever the file is replaced.
        model_version: changes whenever the weights are replaced.
        label: the structure's name, as the viewer calls it.
        client: who asks.
    """

    image: str
    image_version: tuple[int, ...]
    model_version: tuple[int, ...]
    label: str
    client: str


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A binary mask, one bit per voxel of its bounding box."""

    shape: Shape
    box: tuple[slice, slice, slice]
    bits: npt.NDArray[np.uint8]

    @classmethod
    def pack(cls, mask: Mask) -> PackedMask:
        """``mask`` (i, j, k), 0 or 1."""
        i, j, k = mask.shape
        axes = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        a, b, c = (slice(int(axis[0]), int(axis[-1]) + 1) if axis.size else slice(0, 0) for axis in axes)
        return cls((i, j, k), (a, b, c), np.packbits(mask[a, b, c]))

    def unpack(self) -> Mask:
        """The mask that was packed, as a new array."""
        mask = np.zeros(self.shape, np.uint8, order="F")  # as files store it, so that writing needs no transposition
        inside = mask[self.box]
        inside[...] = np.unpackbits(self.bits, count=inside.size).reshape(inside.shape)
        return mask

    @property
    def n_bytes(self) -> int:
        """What keeping it costs."""
        return self.bits.nbytes + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class Recollection:
    """A remembered mask, and whether it is the answer to exactly the clicks that were asked about."""

    mask: Mask
    is_exact: bool


class ClickMemory:
    """Remembers masks by subject and clicks, the least recently used forgotten first; thread-safe.

    Args:
        max_bytes: bound on all masks together; 0 remembers nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._lock = threading.Lock()
        self._masks: OrderedDict[tuple[Subject, Clicks], PackedMask] = OrderedDict()
        self._known: dict[Subject, set[Clicks]] = {}

    @property
    def n_bytes(self) -> int:
        """What the remembered masks cost now."""
        return self._n_bytes

    def recall(self, subject: Subject, clicks: Iterable[Click]) -> Recollection | None:
        """The mask of exactly these clicks, else of the most of them that were answered, else ``None``.

        A mask that was made with a click that is not among ``clicks`` any more (it was undone) is
        never returned.
        """
        asked = frozenset(clicks)
        with self._lock:
            answered = [known for known in self._known.get(subject, ()) if known <= asked]
            if not answered:
                return None
            nearest = max(answered, key=len)
            self._masks.move_to_end((subject, nearest))
            packed = self._masks[subject, nearest]
        return Recollection(packed.unpack(), is_exact=nearest == asked)

    def remember(self, subject: Subject, clicks: Iterable[Click], mask: Mask) -> None:
        """Keep ``mask`` as the answer to ``clicks``."""
        packed = PackedMask.pack(mask)
        if packed.n_bytes > self._max_bytes:
            return
        key = (subject, frozenset(clicks))
        with self._lock:
            if key in self._masks:
                self._forget(key)
            self._masks[key] = packed
            self._known.setdefault(subject, set()).add(key[1])
            self._n_bytes += packed.n_bytes
            while self._n_bytes > self._max_bytes:
                self._forget(next(iter(self._masks)))

    def _forget(self, key: tuple[Subject, Clicks]) -> None:
        self._n_bytes -= self._masks.pop(key).n_bytes
        subject, clicks = key
        self._known[subject].discard(clicks)
        if not self._known[subject]:
            del self._known[subject]
