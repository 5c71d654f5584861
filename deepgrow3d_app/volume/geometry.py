"""Where voxels lie: affines, spacings, and the axis order that the network sees.

Affines map voxel indices (i, j, k) to millimetres in RAS+ world coordinates (x from the patient's
left to right, y from back to front, z from feet to head), as in NIfTI.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
Index = tuple[int, int, int]
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Scalar = TypeVar("Scalar", bound=np.generic)


def spacing_mm(affine: Affine) -> Spacing:
    """Edge lengths (di, dj, dk) of a voxel in mm: the column norms of the 4x4 ``affine``."""
    di, dj, dk = np.linalg.norm(affine[:3, :3], axis=0)
    return float(di), float(dj), float(dk)


def voxel_ml(affine: Affine) -> float:
    """The volume of a voxel in millilitres. Not that of its edges' product: a tilted gantry shears it."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000


@dataclass(frozen=True, slots=True)
class AxisOrder:
    """A reordering of array axes: a permutation and a flip for each resulting axis.

    ``source_axes[a]`` is the source axis that becomes axis ``a``; ``flips[a]`` tells whether axis
    ``a`` then runs backwards. There are 6 x 8 = 48 of them, and each is undone exactly.
    """

    source_axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def to_ras(cls, affine: Affine) -> AxisOrder:
        """The order that brings an array with this ``affine`` nearest to RAS+ (right, front, head).

        Oblique axes go to the world axis that the best one-to-one assignment gives them: that of
        the largest summed absolute direction cosine, so every orientation has an answer.
        """
        cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        best = max(
            itertools.permutations(range(3)),
            key=lambda axes: sum(abs(cosines[world, axes[world]]) for world in range(3)),
        )
        a, b, c = best
        return cls((a, b, c), (bool(cosines[0, a] < 0), bool(cosines[1, b] < 0), bool(cosines[2, c] < 0)))

    def apply(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """A view of ``array`` (i, j, k) in this order; nothing is copied."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        return array.transpose(self.source_axes)[steps]

    def inverse(self) -> AxisOrder:
        """The order that brings the array back: ``x.inverse().apply(x.apply(a))`` is ``a``."""
        a, b, c = (self.source_axes.index(axis) for axis in range(3))
        return AxisOrder((a, b, c), (self.flips[a], self.flips[b], self.flips[c]))

    def undo(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """A view of ``array`` back in the source order: ``undo(apply(x))`` is ``x``."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        return array[steps].transpose(np.argsort(self.source_axes))

    def apply_to_index(self, source_index: Index, source_shape: Shape) -> Index:
        """Where the voxel ``source_index`` of an array of ``source_shape`` lies after :meth:`apply`."""
        i, j, k = (
            source_shape[axis] - 1 - source_index[axis] if flip else source_index[axis]
            for axis, flip in zip(self.source_axes, self.flips, strict=True)
        )
        return i, j, k

    def apply_to_spacing(self, source_spacing_mm: Spacing) -> Spacing:
        """Voxel edge lengths in mm, in the order that :meth:`apply` gives the axes."""
        a, b, c = self.source_axes
        return source_spacing_mm[a], source_spacing_mm[b], source_spacing_mm[c]

    def apply_to_affine(self, affine: Affine, source_shape: Shape) -> Affine:
        """The affine of ``apply(array)`` when ``array`` has ``source_shape`` and ``affine``."""
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1.0
        for axis, (source_axis, flip) in enumerate(zip(self.source_axes, self.flips, strict=True)):
            to_source[source_axis, axis] = -1.0 if flip else 1.0
            to_source[source_axis, 3] = source_shape[source_axis] - 1 if flip else 0.0
        return affine @ to_source
