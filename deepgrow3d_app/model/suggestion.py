"""Where the next click tells the network most: where it is least sure, near the border that it drew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, max_pool3d

from deepgrow3d_app.click.guidance import Point
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.volume.geometry import Index

BLOCK = 4
"""Patch voxels: doubt is averaged over blocks, so that one odd voxel suggests nothing."""

TAKEN = 2
"""Patch voxels around a click, along each axis, in which no other click is suggested; a stored voxel at least."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A voxel to look at next.

    Attributes:
        index: on the volume's stored grid, (i, j, k).
        doubt: how unsure the network is around it: 0 certain, 1 it could be either.
        is_inside: whether the mask holds it now; from :func:`least_sure`, on which side of its border the network is.
    """

    index: Index
    doubt: float
    is_inside: bool


def least_sure(logits: Tensor, roi: Roi, clicked: Sequence[Point] = ()) -> Suggestion | None:
    """The voxel in the middle of the network's doubt, in source voxels of ``roi``; ``None`` where it drew no border.

    Args:
        logits: float (i, j, k) of the region's patch, before clicks are forced on them.
        roi: the region.
        clicked: in patch voxels: what lies around them was said already.
    """
    inside = logits > 0
    if bool(inside.all()) or not bool(inside.any()):
        return None
    doubt = 1 - torch.tanh(logits.float().abs() / 2)  # 1 - |2p - 1| for p the logistic function of the logit
    doubt = torch.where(roi.within_volume(), doubt, 0)
    for point in clicked:
        reach = [(p, max(TAKEN, 1 / step)) for p, step in zip(point, roi.step, strict=True)]
        box = tuple(slice(max(0, math.ceil(p - taken)), max(0, math.floor(p + taken) + 1)) for p, taken in reach)
        doubt[box] = 0
    share = avg_pool3d(inside[None].float(), BLOCK)[0]
    has_border = max_pool3d(share[None], 3, 1, 1)[0] - -max_pool3d(-share[None], 3, 1, 1)[0] > 0
    blocks = torch.where(has_border, avg_pool3d(doubt[None], BLOCK)[0], 0)
    best = int(blocks.argmax())
    if float(blocks.flatten()[best]) <= 0:
        return None
    # NumPy's: the first call of PyTorch's loads its compiler, which takes the first click half a second.
    corner = [int(place) * BLOCK for place in np.unravel_index(best, tuple(blocks.shape))]
    part = doubt[tuple(slice(start, start + BLOCK) for start in corner)]
    within = np.unravel_index(int(part.argmax()), tuple(part.shape))
    place = [start + int(offset) for start, offset in zip(corner, within, strict=True)]
    i, j, k = (
        min(extent - 1, max(0, round(start + (position + 0.5) * step)))
        for position, start, step, extent in zip(place, roi.start, roi.step, roi.source_shape, strict=True)
    )
    return Suggestion((i, j, k), float(part.max()), bool(inside[tuple(place)]))
