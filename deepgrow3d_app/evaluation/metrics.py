"""How well a mask agrees with the truth: overlap of the volumes, overlap of the surfaces, worst distances.

Dice says what share of the volume is right; the normalised surface Dice (NSD) what share of the surface
nobody has to correct; the 95 % Hausdorff distance (HD95) how far off the rest is. NSD and HD95 are those
of DeepMind's ``surface-distance`` (see :mod:`deepgrow3d_app.evaluation.surface`), with which the
CVPR 2025 challenge on interactive 3-D segmentation scores.

Two empty masks agree (Dice 1, NSD 1, HD95 0); an empty and another one do not (Dice 0, NSD 0, HD95 infinite).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.evaluation.surface import DistanceMap, Surface, bounds
from deepgrow3d_app.volume.boxed_mask import Box, bounding_box
from deepgrow3d_app.volume.geometry import Spacing

MAP_MARGIN_MM = 10.0
MAX_MAP_MARGIN = 32
"""In voxels: of fine ones, 10 mm would be gigabytes."""
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class MaskScores:
    """Agreement of one mask with the truth.

    Attributes:
        dice: 0 to 1, best 1.
        nsd: normalised surface Dice at the reference's tolerance, 0 to 1, best 1.
        hd95_mm: 95 % Hausdorff distance, best 0; infinite where exactly one of the two is empty.
    """

    dice: float
    nsd: float
    hd95_mm: float


class Reference:
    """The truth of one structure, prepared once for scoring many masks. Not to be shared by threads.

    Args:
        truth: (i, j, k), inside where non-zero.
        spacing_mm: voxel edges.
        tolerance_mm: a surface element counts for the NSD when it is at most this far from the other
            surface, give or take a millionth: equality is not left to rounding.

    Attributes:
        truth: bool (i, j, k).
    """

    def __init__(self, truth: npt.NDArray[np.generic], spacing_mm: Spacing, tolerance_mm: float = 2.0) -> None:
        self.truth: npt.NDArray[np.bool_] = np.asarray(truth != 0)
        self.tolerance_mm = tolerance_mm
        # Scores are the same in every axis order; numpy is fastest with the axes as they lie in memory.
        a, b, c = sorted(range(3), key=lambda axis: -abs(self.truth.strides[axis]))
        self._axes = (a, b, c)
        self._spacing_mm = (spacing_mm[a], spacing_mm[b], spacing_mm[c])
        self._structure = self._find(self.truth)
        self._map: DistanceMap | None = None

    def score(self, mask: npt.NDArray[np.generic]) -> MaskScores:
        """Compare a mask with the truth; fastest where the two lie in memory in the same order.

        Args:
            mask: (i, j, k), inside where non-zero.

        Raises:
            ValueError: the shapes differ.
        """
        _check_one_grid(mask, self.truth)
        truth, answer = self._structure, self._find(mask)
        if truth is None or answer is None:
            return MaskScores(1.0, 1.0, 0.0) if truth is answer else MaskScores(0.0, 0.0, math.inf)
        low, high = bounds(truth.surface.corners, answer.surface.corners)
        missed_mm = DistanceMap.of(answer.surface, low, high, self._spacing_mm).at(truth.surface.corners)
        strayed_mm = self._truth_map(truth.surface, answer.surface).at(answer.surface.corners)
        missed_mm2, strayed_mm2 = truth.surface.areas_mm2, answer.surface.areas_mm2
        bound_mm = self.tolerance_mm * (1 + ROUNDING)
        agreeing_mm2 = missed_mm2[missed_mm <= bound_mm].sum() + strayed_mm2[strayed_mm <= bound_mm].sum()
        return MaskScores(
            dice=2.0 * truth.overlap(answer) / (truth.voxels + answer.voxels),
            nsd=float(agreeing_mm2 / (missed_mm2.sum() + strayed_mm2.sum())),
            hd95_mm=max(percentile_mm(missed_mm, missed_mm2), percentile_mm(strayed_mm, strayed_mm2)),
        )

    def _find(self, mask: npt.NDArray[np.generic]) -> _Structure | None:
        """What is inside ``mask``, with the axes as the truth lies in memory; ``None`` where it is empty."""
        return _Structure.of(mask.transpose(self._axes), self._spacing_mm)

    def _truth_map(self, truth: Surface, answer: Surface) -> DistanceMap:
        """Distances to the truth: kept from mask to mask, and measured anew only when one reaches beyond them."""
        if self._map is None or not self._map.covers(answer.corners):
            margin_mm = np.ceil(MAP_MARGIN_MM / np.array(self._spacing_mm)).astype(np.intp)
            margin = np.minimum(margin_mm, MAX_MAP_MARGIN)[:, None]
            low, high = bounds(truth.corners, answer.corners)
            self._map = DistanceMap.of(truth, low - margin, high + margin, self._spacing_mm)
        return self._map


@dataclass(frozen=True, slots=True, eq=False)
class _Structure:
    """A mask that is not empty, cut down to its bounding box.

    Attributes:
        box: where it lies on the grid.
        inside: bool (i, j, k), the mask in the box.
        voxels: number of voxels inside.
        surface: its surface elements, on the whole grid's lattice.
    """

    box: Box
    inside: npt.NDArray[np.bool_]
    voxels: int
    surface: Surface

    @classmethod
    def of(cls, mask: npt.NDArray[np.generic], spacing_mm: Spacing) -> _Structure | None:
        # A byte is true where it is not 0, so that the box is found without a copy of the mask.
        whole = mask.view(np.bool_) if mask.dtype.itemsize == 1 else np.asarray(mask != 0)
        box = bounding_box(whole)
        if box is None:
            return None
        inside = np.asarray(mask[box] != 0)
        first_voxel = (box[0].start, box[1].start, box[2].start)
        return cls(box, inside, int(np.count_nonzero(inside)), Surface.of(inside, first_voxel, spacing_mm))

    def overlap(self, other: _Structure) -> int:
        """Number of voxels that are inside both."""
        common = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(self.box, other.box, strict=True)]
        if any(start >= stop for start, stop in common):
            return 0
        ours, theirs = (
            structure.inside[
                tuple(
                    slice(start - side.start, stop - side.start)
                    for (start, stop), side in zip(common, structure.box, strict=True)
                )
            ]
            for structure in (self, other)
        )
        return int(np.count_nonzero(ours & theirs))


def dice(mask: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]) -> float:
    """Twice the overlap over the summed sizes: 1 for equal masks, 0 for disjoint ones.

    Args:
        mask, truth: (i, j, k), inside where non-zero. Two empty masks are equal.

    Raises:
        ValueError: the shapes differ.
    """
    _check_one_grid(mask, truth)
    inside, expected = mask != 0, truth != 0
    total = int(inside.sum()) + int(expected.sum())
    return 2.0 * int((inside & expected).sum()) / total if total else 1.0


def surface_dice(
    mask: npt.NDArray[np.generic], truth: npt.NDArray[np.generic], spacing_mm: Spacing, tolerance_mm: float
) -> float:
    """The normalised surface Dice of two masks (i, j, k), 0 to 1; see :class:`Reference` for many masks."""
    return Reference(truth, spacing_mm, tolerance_mm).score(mask).nsd


def hausdorff95_mm(mask: npt.NDArray[np.generic], truth: npt.NDArray[np.generic], spacing_mm: Spacing) -> float:
    """The 95 % Hausdorff distance of two masks (i, j, k) in mm; infinite where exactly one is empty."""
    return Reference(truth, spacing_mm).score(mask).hd95_mm


def percentile_mm(
    distances_mm: npt.NDArray[np.floating], areas_mm2: npt.NDArray[np.float64], percent: float = 95.0
) -> float:
    """The distance that ``percent`` of the area does not exceed.

    Args:
        distances_mm, areas_mm2: (n), of each surface element.
    """
    order = np.argsort(distances_mm)
    shares = np.cumsum(areas_mm2[order])
    position = int(np.searchsorted(shares / shares[-1], percent / 100))
    return float(distances_mm[order[min(position, order.size - 1)]])


def _check_one_grid(mask: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]) -> None:
    if mask.shape != truth.shape:
        raise ValueError(f"Masks of shapes {mask.shape} and {truth.shape} cannot be compared: bring them to one grid.")
