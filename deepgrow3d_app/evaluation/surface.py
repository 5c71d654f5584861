"""Surfaces of voxel masks: where their elements lie, how large they are, how far from another surface.

The definition is that of DeepMind's ``surface-distance`` (Nikolov et al., "Clinically applicable
segmentation of head and neck anatomy for radiotherapy", J Med Internet Res 2021). A surface lives on
the lattice of voxel corners, half a voxel off the grid. Each corner has 2 x 2 x 2 voxels around it;
where some of them are inside and some outside, there is a surface element, with the area in mm^2 that
marching cubes gives those eight voxels. Beyond the grid everything is outside, so that a mask which
touches the volume's border has a surface there too.

Corner (i, j, k) lies between the voxels (i - 1, j - 1, k - 1) and (i, j, k): n voxels have n + 1 corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
import numpy.typing as npt
from monai.metrics.utils import get_code_to_measure_table

from deepgrow3d_app.volume.geometry import Index, Spacing

Corners = npt.NDArray[np.intp]
"""Indices of corners as columns: intp (3, n), with rows i, j and k."""

ALL_INSIDE = 255
THREADS = 2


@dataclass(frozen=True, slots=True)
class Surface:
    """The elements of a mask's surface.

    Attributes:
        corners: where they lie on the grid's lattice of corners.
        areas_mm2: float64 (n), in the same order.
    """

    corners: Corners
    areas_mm2: npt.NDArray[np.float64]

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_], first_voxel: Index, spacing_mm: Spacing) -> Surface:
        """The surface of a mask of which a box is known.

        Args:
            mask: bool (i, j, k), a box of the grid that holds every inside voxel.
            first_voxel: the grid's index of ``mask[0, 0, 0]``.
            spacing_mm: voxel edges.
        """
        codes = neighbour_codes(mask)
        # One comparison finds the codes other than 0 and 255, because 0 - 1 wraps around to 255.
        corners = np.array(np.nonzero(codes - np.uint8(1) < ALL_INSIDE - 1))
        areas_mm2 = surfel_areas_mm2(spacing_mm)[codes[tuple(corners)]]
        return cls(corners + np.array(first_voxel)[:, None], areas_mm2)


@dataclass(frozen=True, slots=True)
class DistanceMap:
    """How far the corners in a box are from one surface.

    Attributes:
        low: intp (3, 1), the corner that ``distances_mm[0, 0, 0]`` belongs to.
        distances_mm: float32 (i, j, k), from corners to the nearest surface element.
    """

    low: Corners
    distances_mm: npt.NDArray[np.float32]

    @classmethod
    def of(cls, surface: Surface, low: Corners, high: Corners, spacing_mm: Spacing) -> DistanceMap:
        """Measure in the box from ``low`` to ``high``, both (3, 1) and included; it has to hold the surface."""
        i, j, k = (high - low + 1).ravel()
        elsewhere = np.ones((i, j, k), dtype=np.uint8)
        elsewhere[tuple(surface.corners - low)] = 0
        return cls(low, edt.edt(elsewhere, anisotropy=spacing_mm, parallel=THREADS))

    def covers(self, corners: Corners) -> bool:
        """Whether all ``corners`` lie in the box."""
        low, high = bounds(corners)
        beyond = self.low + np.array(self.distances_mm.shape)[:, None]
        return bool((low >= self.low).all() and (high < beyond).all())

    def at(self, corners: Corners) -> npt.NDArray[np.float32]:
        """The distances in mm of ``corners`` (3, n), all of them in the box: float32 (n)."""
        distances_mm: npt.NDArray[np.float32] = self.distances_mm[tuple(corners - self.low)]
        return distances_mm


def bounds(*corners: Corners) -> tuple[Corners, Corners]:
    """The lowest and the highest index along each axis, both (3, 1), of all ``corners`` together."""
    low = np.min([each.min(axis=1, keepdims=True) for each in corners], axis=0)
    high = np.max([each.max(axis=1, keepdims=True) for each in corners], axis=0)
    return low, high


def neighbour_codes(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Which of the 8 voxels around each corner are inside, one bit for each.

    Args:
        mask: bool (i, j, k).

    Returns:
        uint8 (i + 1, j + 1, k + 1). The voxel (i - 1 + a, j - 1 + b, k - 1 + c) of corner (i, j, k),
        with a, b and c 0 or 1, has the bit ``128 >> (4 * a + 2 * b + c)``.
    """
    codes = np.pad(mask.view(np.uint8), 1)
    # Each of the weights 128, 64, ... 1 is a product of one weight per axis: three passes instead of eight.
    codes = codes[:, :, :-1] * np.uint8(2) + codes[:, :, 1:]
    codes = codes[:, :-1] * np.uint8(4) + codes[:, 1:]
    return codes[:-1] * np.uint8(16) + codes[1:]


def surfel_areas_mm2(spacing_mm: Spacing) -> npt.NDArray[np.float64]:
    """The area of the surface element of each neighbour code: float64 (256)."""
    areas_mm2, _ = get_code_to_measure_table(spacing_mm)  # type: ignore[no-untyped-call]  # MONAI has no types here
    return np.asarray(areas_mm2, dtype=np.float64)
