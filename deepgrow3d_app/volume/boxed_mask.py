"""A binary mask by its bounding box: an organ in a large volume without the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.volume.geometry import AxisOrder, Index, Shape
from deepgrow3d_app.volume.volume import Mask

Region = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
"""From ``start`` to before ``stop`` along (i, j, k); never with steps."""

NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


@dataclass(frozen=True, slots=True, eq=False)
class BoxedMask:
    """A mask on a grid, of which only a part is in memory: outside of it there is nothing.

    Attributes:
        shape: of the grid (i, j, k).
        box: where the part lies, within the grid.
        part: bool, of the extents of ``box``; treat it as read-only.
    """

    shape: Shape
    box: Box
    part: Region

    @classmethod
    def of(cls, mask: Mask) -> BoxedMask:
        """``mask`` (i, j, k): what is not 0 counts; the box is the smallest that holds it."""
        i, j, k = mask.shape
        inside = mask.view(np.bool_) if mask.dtype == np.bool_ else mask != 0
        return cls((i, j, k), (slice(0, i), slice(0, j), slice(0, k)), inside).tight()

    def tight(self) -> BoxedMask:
        """The same mask with the smallest box that holds it."""
        inner = bounding_box(self.part)
        if inner is None:
            return BoxedMask(self.shape, NOWHERE, np.zeros((0, 0, 0), np.bool_))
        i, j, k = (
            slice(outer.start + extent.start, outer.start + extent.stop)
            for outer, extent in zip(self.box, inner, strict=True)
        )
        return BoxedMask(self.shape, (i, j, k), self.part[inner])

    def full(self) -> Mask:
        """The whole grid, uint8, as a new array; first axis fastest, as files store it."""
        mask = np.zeros(self.shape, np.uint8, order="F")
        mask[self.box] = self.part
        return mask

    def within(self, box: Box) -> Region:
        """The mask within ``box`` of the grid, as a new array of its extents."""
        window = np.zeros([extent.stop - extent.start for extent in box], np.bool_)
        common = intersection(self.box, box)
        if common is not None:
            window[relative(common, box)] = self.part[relative(common, self.box)]
        return window

    def reordered(self, order: AxisOrder) -> BoxedMask:
        """The mask of the array that ``order`` makes of this one's; nothing is copied."""
        i, j, k = (self.shape[axis] for axis in order.source_axes)
        a, b, c = (
            slice(self.shape[axis] - self.box[axis].stop, self.shape[axis] - self.box[axis].start)
            if flip
            else self.box[axis]
            for axis, flip in zip(order.source_axes, order.flips, strict=True)
        )
        return BoxedMask((i, j, k), (a, b, c), order.apply(self.part))

    @property
    def voxels(self) -> int:
        """How many are inside."""
        return int(np.count_nonzero(self.part))


def bounding_box(region: Region) -> Box | None:
    """The smallest box (i, j, k) that holds every true voxel of ``region``; ``None`` where there is none.

    Looks from both ends of the axis that is slowest in memory and stops at the first true voxel; the rest is
    flattened along that axis. So an organ in a large volume is found without passing over all of it.
    """
    slow = max(range(3), key=lambda axis: abs(region.strides[axis]))
    slabs = np.moveaxis(region, slow, 0)
    first = next((position for position, slab in enumerate(slabs) if slab.any()), None)
    if first is None:
        return None
    last = next(position for position in range(len(slabs) - 1, -1, -1) if slabs[position].any())
    box = [slice(first, last + 1)] * 3
    shadow = np.bitwise_or.reduce(slabs[first : last + 1].view(np.uint8), axis=0).view(np.bool_)
    a, b = (axis for axis in range(3) if axis != slow)
    for axis, occupied in ((a, shadow.any(axis=1)), (b, shadow.any(axis=0))):
        places = np.flatnonzero(occupied)
        box[axis] = slice(int(places[0]), int(places[-1]) + 1)
    return box[0], box[1], box[2]


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of ``boxes``, at least one."""
    i, j, k = (
        slice(min(e.start for e in extents), max(e.stop for e in extents)) for extents in zip(*boxes, strict=True)
    )
    return i, j, k


def intersection(a: Box, b: Box) -> Box | None:
    """What both boxes hold; ``None`` where that is nothing."""
    i, j, k = (slice(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(a, b, strict=True))
    return None if any(extent.start >= extent.stop for extent in (i, j, k)) else (i, j, k)


def relative(box: Box, to: Box) -> Box:
    """``box`` counted from the lower corner of ``to``."""
    i, j, k = (slice(x.start - y.start, x.stop - y.start) for x, y in zip(box, to, strict=True))
    return i, j, k


def around_voxel(index: Index) -> Box:
    """The box of one voxel."""
    i, j, k = (slice(position, position + 1) for position in index)
    return i, j, k
