"""Masks of earlier clicks, kept so that the next click can start from them.

Viewers send all clicks of a structure at every request, so the server needs no session to answer;
but the network improves a mask better than it starts over. What was answered to some of the clicks
is therefore remembered, within a bound, and may be forgotten at any time: :mod:`click_log` knows how
to compute it again.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from isal import isal_zlib

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.volume.boxed_mask import Box, BoxedMask
from deepgrow3d_app.volume.geometry import Shape

OVERHEAD_BYTES = 1024
"""What an entry costs besides its voxels, roughly: its clicks, keys and bookkeeping."""

Clicks = frozenset[Click]

Way = tuple[Clicks, ...]
"""Clicks that were answered one after the other, each from the mask of those before: what a mask depends on."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What clicks are about: clicks on different subjects never share masks.

    Attributes:
        image: the path of the image, or another name that no second image has.
        image_version: changes whenever the file is replaced.
        model_version: changes whenever the weights are replaced.
        label: the structure's name, as the viewer calls it.
        client: who asks, as the viewer calls itself, which may be the same for everybody.
        annotator: who asks, by the name that was signed in with; "" where nobody signs in.
    """

    image: str
    image_version: tuple[int, ...]
    model_version: tuple[int, ...]
    label: str
    client: str
    annotator: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A binary mask: a bit for each voxel of its bounding box, deflated."""

    shape: Shape
    box: Box
    deflated: bytes

    @classmethod
    def pack(cls, mask: BoxedMask) -> PackedMask:
        """``mask`` in about a thirtieth of its bytes."""
        return cls(mask.shape, mask.box, isal_zlib.compress(np.packbits(mask.part)))

    def unpack(self) -> BoxedMask:
        """The mask that was packed."""
        extents = [extent.stop - extent.start for extent in self.box]
        bits = np.frombuffer(isal_zlib.decompress(self.deflated), np.uint8)
        part = np.unpackbits(bits, count=math.prod(extents)).reshape(extents)
        return BoxedMask(self.shape, self.box, part.view(np.bool_))

    @property
    def n_bytes(self) -> int:
        """What keeping it costs."""
        return len(self.deflated) + OVERHEAD_BYTES


class ClickMemory:
    """Remembers masks by subject and the way to them, the least recently used forgotten first; thread-safe.

    Args:
        max_bytes: bound on all masks together; 0 remembers nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._lock = threading.Lock()
        self._masks: OrderedDict[tuple[Subject, Way], PackedMask] = OrderedDict()

    @property
    def n_bytes(self) -> int:
        """What the remembered masks cost now."""
        return self._n_bytes

    def recall(self, subject: Subject, way: Way) -> BoxedMask | None:
        """The mask at the end of exactly this way, or ``None`` where it is not remembered (any more)."""
        with self._lock:
            packed = self._masks.get((subject, way))
            if packed is None:
                return None
            self._masks.move_to_end((subject, way))
        return packed.unpack()

    def remember(self, subject: Subject, way: Way, mask: BoxedMask) -> None:
        """Keep ``mask``, to which ``way`` led."""
        packed = PackedMask.pack(mask)
        if packed.n_bytes > self._max_bytes:
            return
        key = (subject, way)
        with self._lock:
            if key in self._masks:
                self._n_bytes -= self._masks.pop(key).n_bytes
            self._masks[key] = packed
            self._n_bytes += packed.n_bytes
            while self._n_bytes > self._max_bytes:
                self._n_bytes -= self._masks.popitem(last=False)[1].n_bytes
