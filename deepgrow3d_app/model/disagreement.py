"""How much a network contradicts itself in an image that nobody labelled yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import edt
import numpy as np

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.model.predictor import Prediction
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.geometry import Index, Spacing
from deepgrow3d_app.volume.volume import Volume

Predict = Callable[[Volume, Sequence[Click]], Prediction]

SEEDS_PER_AXIS = 2
AIR_HU = -1024.0
"""Nothing is less; beyond the round field of view of a CT, some scanners store -2000 and such."""
BODY_SHARE = 0.25
"""Seeds lie where the image is brighter than this share of its range: not in the air around a patient."""


def disagreement(predict: Predict, volume: Volume, seeds: Sequence[Index]) -> float:
    """From 0 to 1: how little the mask of a click resembles the mask of a click elsewhere in that mask.

    Whoever knows a structure draws it the same wherever it is clicked. For each seed, the mask A that it leads to is
    compared with the mask B that A's deepest voxel leads to: 1 - Dice(A, B), averaged over seeds. It needs no label.

    Args:
        predict: answers clicks from nothing.
        volume: the image.
        seeds: voxels to begin at, at least one.
    """
    values = []
    for seed in seeds:
        first = predict(volume, [Click(seed)]).boxed
        second = predict(volume, [Click(_deepest(first, volume.spacing_mm))]).boxed
        values.append(1 - _dice(first, second))
    return float(np.mean(values))


def body_seeds(volume: Volume, labelled: Sequence[Index] = ()) -> list[Index]:
    """Where to begin in ``volume``: at ``labelled`` voxels, or else on a coarse grid, as far as there is tissue."""
    if labelled:
        return list(labelled)
    low, high = (float(value) for value in np.percentile(volume.array[::4, ::4, ::4], (1, 99)))
    if volume.is_ct and volume.slope > 0:
        low = max(low, (AIR_HU - volume.intercept) / volume.slope)
    bright = low + BODY_SHARE * (high - low)
    parts = 2 * SEEDS_PER_AXIS
    grid = [[n * place // parts for place in range(1, parts, 2)] for n in volume.shape]
    seeds: list[Index] = [(i, j, k) for i in grid[0] for j in grid[1] for k in grid[2]]
    inside = [seed for seed in seeds if volume.array[seed] > bright]
    i, j, k = (n // 2 for n in volume.shape)
    return inside or [(i, j, k)]


def _deepest(mask: BoxedMask, spacing_mm: Spacing) -> Index:
    depth = edt.edt(np.ascontiguousarray(mask.part), anisotropy=spacing_mm, black_border=True, parallel=1)
    place = np.unravel_index(int(depth.argmax()), depth.shape)
    i, j, k = (int(offset) + extent.start for offset, extent in zip(place, mask.box, strict=True))
    return i, j, k


def _dice(mask: BoxedMask, other: BoxedMask) -> float:
    total = mask.voxels + other.voxels
    return 2 * int(np.count_nonzero(mask.part & other.within(mask.box))) / total if total else 1.0
