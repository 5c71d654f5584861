"""The region that the network looks at: cut out of the volume first, resampled after, undone exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepgrow3d_app.click.guidance import Point
from deepgrow3d_app.volume.boxed_mask import NOWHERE, Box, BoxedMask
from deepgrow3d_app.volume.geometry import Index, Shape, Spacing

THIN_SHARE = 0.3
"""A volume is thin along an axis on which it covers less of the region."""

POSITIONS_AT_ONCE = 16
"""So many positions are resampled by one product of matrices: fewer are more calls, more are more zeros."""


@dataclass(frozen=True, slots=True)
class Roi:
    """A box of the source grid seen as a patch of the network's shape.

    The source grid is the volume in RAS order (``AxisOrder.apply``). The region may stick out of the
    volume; what lies outside is filled on the way in and dropped on the way out.

    Attributes:
        start: lower corner of the region in source voxels; voxel ``v`` spans [v - 0.5, v + 0.5].
        step: source voxels per patch voxel along (i, j, k).
        patch_shape: voxels of the patch.
        source_shape: voxels of the source grid.
    """

    start: tuple[float, float, float]
    step: tuple[float, float, float]
    patch_shape: Shape
    source_shape: Shape

    @classmethod
    def around(
        cls,
        centre: Point,
        patch_shape: Shape,
        patch_spacing_mm: Spacing,
        source_shape: Shape,
        source_spacing_mm: Spacing,
    ) -> Roi:
        """The region of ``patch_shape`` voxels of ``patch_spacing_mm`` with its middle at ``centre``.

        Where the volume is longer than the region, the region is moved to lie inside it: voxels
        that do not exist tell the network nothing. Where it is shorter, the volume lies in the middle.

        Args:
            centre: source index (i, j, k), not necessarily an integer.
        """
        step = [p / s for p, s in zip(patch_spacing_mm, source_spacing_mm, strict=True)]
        start = []
        for middle, width, extent in zip(
            centre, (n * s for n, s in zip(patch_shape, step, strict=True)), source_shape, strict=True
        ):
            if width >= extent:
                start.append((extent - width) / 2 - 0.5)
            else:
                start.append(min(max(middle - width / 2, -0.5), extent - 0.5 - width))
        return cls((start[0], start[1], start[2]), (step[0], step[1], step[2]), patch_shape, source_shape)

    @property
    def source_box(self) -> Box:
        """The source voxels that the region covers, as slices into the source array."""
        box = []
        for start, step, count, extent in zip(self.start, self.step, self.patch_shape, self.source_shape, strict=True):
            first = max(0, math.ceil(start - 1e-6))
            last = min(extent - 1, math.floor(start + step * count + 1e-6))
            box.append(slice(first, max(first, last) + 1))
        return box[0], box[1], box[2]

    def to_patch(self, source_index: Index) -> Point:
        """Where a source voxel's centre lies, in patch voxels."""
        i, j, k = (
            (index - start) / step - 0.5 for index, start, step in zip(source_index, self.start, self.step, strict=True)
        )
        return i, j, k

    def holds(self, source_index: Index) -> bool:
        """Whether a source voxel's centre lies in the patch."""
        return all(-0.5 <= p <= n - 0.5 for p, n in zip(self.to_patch(source_index), self.patch_shape, strict=True))

    def within_volume(self) -> Tensor:
        """Which patch voxels have their centre in the volume: bool (i, j, k) of ``patch_shape``."""
        i, j, k = (_along(axis, _within(self._positions(axis), self.source_shape[axis])) for axis in range(3))
        return i & j & k

    def crop(self, source: npt.NDArray[np.generic], fill: float) -> Tensor:
        """The region of a source array (of ``source_shape``) as a float32 patch (i, j, k).

        Linear interpolation; where the patch is coarser than the source, a triangle as wide as the
        patch voxel averages what would otherwise alias. Patch voxels with their centre outside the
        volume get ``fill``; but beyond a thin volume, one or a few slices, they repeat its border: between
        layers of air it would look like nothing that a network knows.
        """
        return self.crop_covered(source[self.source_box], fill)

    def crop_covered(self, covered: npt.NDArray[np.generic], fill: float) -> Tensor:
        """As :meth:`crop`, of that part of the source array alone which ``source_box`` covers."""
        box = self.source_box
        patch = torch.from_numpy(np.ascontiguousarray(covered, dtype=np.float32))
        outside = torch.zeros(self.patch_shape, dtype=torch.bool)
        for axis, extent in enumerate(self.source_shape):
            positions = self._positions(axis)
            matrix = _interpolation(
                positions - box[axis].start, box[axis].stop - box[axis].start, max(1.0, self.step[axis])
            )
            patch = _resampled(patch, matrix, axis)
            if extent >= THIN_SHARE * self.step[axis] * self.patch_shape[axis]:
                outside |= _along(axis, ~_within(positions, extent))
        return patch.masked_fill(outside, fill)

    def restore(self, logits: Tensor) -> BoxedMask:
        """Where the interpolated ``logits`` are positive, on the source grid.

        Patch voxels with their centre outside the volume have no say: the network sees no tissue there, and would take
        some from the volume's first and last slices.

        Args:
            logits: float (i, j, k) of ``patch_shape``.
        """
        positive = logits > 0
        if not bool(positive.any()):
            return BoxedMask(self.source_shape, NOWHERE, np.zeros((0, 0, 0), np.bool_))
        box = list(self.source_box)
        matrices = []
        for axis in range(3):
            # Interpolation is positive only next to a positive patch voxel: the rest need not be drawn.
            along = positive.any(dim=(axis + 1) % 3, keepdim=True).any(dim=(axis + 2) % 3, keepdim=True).flatten()
            drawn = torch.nonzero(along).flatten()
            low = self.start[axis] + (int(drawn[0]) - 0.5) * self.step[axis]
            high = self.start[axis] + (int(drawn[-1]) + 1.5) * self.step[axis]
            box[axis] = slice(max(box[axis].start, math.floor(low)), min(box[axis].stop, math.ceil(high) + 1))
            if box[axis].start >= box[axis].stop:  # all of it lies beyond the volume
                return BoxedMask(self.source_shape, NOWHERE, np.zeros((0, 0, 0), np.bool_))
            positions = (torch.arange(box[axis].start, box[axis].stop) - self.start[axis]) / self.step[axis] - 0.5
            matrix = _interpolation(positions, self.patch_shape[axis], max(1.0, 1.0 / self.step[axis]))
            matrices.append(_renormalised(matrix, _within(self._positions(axis), self.source_shape[axis])))
        values = logits.float()
        for axis in (2, 1, 0):  # the array grows: last along the axis whose planes lie in one piece
            values = _resampled(values, matrices[axis], axis)
        return BoxedMask(self.source_shape, (box[0], box[1], box[2]), (values > 0).numpy())

    def _positions(self, axis: int) -> Tensor:
        """Where the centres of the patch's voxels lie along ``axis``, in source voxels: (``patch_shape[axis]``)."""
        return self.start[axis] + (torch.arange(self.patch_shape[axis]) + 0.5) * self.step[axis]


def _resampled(values: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """``values`` (i, j, k) at other positions along ``axis``, by the weights ``matrix`` (positions, count).

    A position needs the few samples next to it, and the array may be a large one: so some positions at a time are
    computed of what they need. Of all samples at once, nearly all products would be with zeros.
    """
    if axis == 2:
        return values @ matrix.T
    positions = matrix.shape[0]
    resampled = values.new_empty([positions if other == axis else extent for other, extent in enumerate(values.shape)])
    for first in range(0, positions, POSITIONS_AT_ONCE):
        weights = matrix[first : first + POSITIONS_AT_ONCE]
        needed = weights.any(dim=0).nonzero()
        low, high = int(needed[0]), int(needed[-1]) + 1
        samples = values.narrow(axis, low, high - low)
        part = resampled.narrow(axis, first, weights.shape[0])
        if axis == 0:
            torch.mm(weights[:, low:high], samples.flatten(1), out=part.flatten(1))
        else:
            torch.matmul(weights[:, low:high], samples, out=part)
    return resampled


def _within(positions: Tensor, extent: int) -> Tensor:
    """Which source positions lie in a volume of ``extent`` voxels: bool, of the same shape."""
    return (positions >= -0.5) & (positions <= extent - 0.5)


def _along(axis: int, values: Tensor) -> Tensor:
    """``values`` (n) as an array (i, j, k) that has one step along the other axes."""
    return values.reshape([-1 if other == axis else 1 for other in range(3)])


def _renormalised(weights: Tensor, kept: Tensor) -> Tensor:
    """``weights`` (positions, count) of the ``kept`` samples alone, rows sum to 1; where none is, as they are."""
    inside = weights * kept
    total = inside.sum(dim=1, keepdim=True)
    return torch.where(total > 0, inside / total.clamp(min=1e-6), weights)


def _interpolation(positions: Tensor, count: int, width: float) -> Tensor:
    """Weights (positions, count) of samples 0 ... count - 1: triangles of half-width ``width``, rows sum to 1.

    Positions beyond the samples take the nearest one, so that borders extend outwards.
    """
    clamped = positions.clamp(0, count - 1)
    weights = (1 - (clamped[:, None] - torch.arange(count)).abs() / width).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)
