"""What the image says of doubtful voxels: do they look like what surely is inside, or like what surely is beside it?

A network knows tissues from the images that it was trained with. In another one, contrast medium, scanner or disease
make them look otherwise. Where the network is sure all the same, this image itself shows how the structure and its
surroundings look, and the voxels in between are judged by that: GrabCut's models of colours (Rother et al., SIGGRAPH
2004), as histograms. Every answer makes the mask that the next one starts from, so what is gained adds up.

Tissue moves borders: it makes no new part of the mask, and no hole in it. A few voxels far away that look alike are
specks, which somebody would have to take away again.
"""

from __future__ import annotations

import cc3d
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv1d, max_pool3d

SURE_LOGIT = 1.5
"""From here on the network is sure, upwards and downwards: probabilities of 0.82 and 0.18."""
WEIGHT = 1.4
"""Of the evidence, beside the network's answer.

With half of it, each voxel judged alone, inexact clicks gained less, and exact ones no more.
"""
MAX_LOG_RATIO = 2.0
"""Intensities alone are never believed more than that, times ``WEIGHT``."""
REACH = 6
"""Surroundings: patch voxels beyond the mask, along each axis."""
INTENSITIES = (-2.0, 2.0)
"""Normalised ones, in ``BINS`` steps; what lies beyond counts to the outermost."""
BINS = 64
PRIOR_VOXELS = 500.0
"""Both sides are taken to have so many more patch voxels with the intensities of the two together.

Of what is rarely seen, and of few sure voxels, no ratio then means much.
"""
SMOOTHING = (1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9)


def judged_by_tissue(logits: Tensor, image: Tensor, within: Tensor) -> Tensor:
    """``logits``, but for the doubtful ones (below ``SURE_LOGIT`` in size): those have the evidence of ``image`` added.

    The evidence is ``WEIGHT`` times the logarithm of the ratio of two shares: how much of what surely is inside, and
    of what surely is outside within ``REACH`` of the mask, has this intensity; the mean of a voxel's and of its 26
    neighbours'. It is left out where it would make a part of the mask, or of what is beside it (6 neighbours), in
    which the network alone had drawn no such voxel.

    Args:
        logits: float32 (i, j, k).
        image: float32 (i, j, k), normalised intensities.
        within: bool (i, j, k), voxels of the volume. What the patch was filled with beyond it is no tissue.

    Returns:
        A new tensor; ``logits`` itself where nothing is sure on one of the two sides.
    """
    bins = _bins(image)
    inside = bins[within & (logits >= SURE_LOGIT)]
    beside = bins[within & (logits <= -SURE_LOGIT) & _dilated(logits > 0)]
    if not len(inside) or not len(beside):
        return logits
    ratio = WEIGHT * _log_ratio(_histogram(inside), _histogram(beside)).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    judged = torch.where(logits.abs() < SURE_LOGIT, logits + _mean_of_neighbours(ratio[bins], within), logits)
    is_inside, was_inside = judged > 0, logits > 0
    return torch.where(_new_parts(is_inside, was_inside) | _new_parts(~is_inside, ~was_inside), logits, judged)


def _new_parts(after: Tensor, before: Tensor) -> Tensor:
    """The connected parts of ``after`` in which no voxel is of ``before``: bool, of the same shape."""
    parts = cc3d.connected_components(after.numpy().astype(np.uint8), connectivity=6)  # of bool it may raise
    is_new = np.ones(int(parts.max()) + 1, np.bool_)
    is_new[parts[before.numpy()]] = False
    is_new[0] = False
    return torch.from_numpy(is_new[parts])


def _bins(image: Tensor) -> Tensor:
    low, high = INTENSITIES
    return ((image - low) * (BINS / (high - low))).long().clamp(0, BINS - 1)


def _histogram(bins: Tensor) -> Tensor:
    """Smoothed counts: float32 (``BINS``)."""
    counts = torch.bincount(bins, minlength=BINS).float()
    kernel = counts.new_tensor(SMOOTHING)
    return conv1d(counts[None, None], kernel[None, None], padding=len(SMOOTHING) // 2)[0, 0]


def _log_ratio(inside: Tensor, beside: Tensor) -> Tensor:
    """Of the shares of each bin in two histograms that are not empty; 0 where neither has anything."""
    together = inside / inside.sum() + beside / beside.sum()
    prior = PRIOR_VOXELS * together / together.sum()
    shares = [(counts + prior) / (counts.sum() + PRIOR_VOXELS) for counts in (inside, beside)]
    return torch.where(together > 0, torch.log(shares[0] / shares[1]), 0.0)


def _mean_of_neighbours(evidence: Tensor, within: Tensor) -> Tensor:
    """Noise in single voxels would make a ragged border. What lies beyond the volume is no neighbour."""
    total, count = evidence * within, within.to(evidence.dtype)
    for axis in range(3):
        total, count = _with_both_neighbours(total, axis), _with_both_neighbours(count, axis)
    return total / count.clamp(min=1)


def _with_both_neighbours(values: Tensor, axis: int) -> Tensor:
    """The sums of each value and those next to it along ``axis``. PyTorch's pooling takes far longer."""
    sums = values.clone()
    pairs = values.shape[axis] - 1
    sums.narrow(axis, 0, pairs).add_(values.narrow(axis, 1, pairs))
    sums.narrow(axis, 1, pairs).add_(values.narrow(axis, 0, pairs))
    return sums


def _dilated(mask: Tensor) -> Tensor:
    """``mask`` and what lies within ``REACH`` of it along each axis, in steps of two voxels."""
    grown = max_pool3d(mask[None].float(), 2, ceil_mode=True)
    width = REACH // 2
    for kernel in ((2 * width + 1, 1, 1), (1, 2 * width + 1, 1), (1, 1, 2 * width + 1)):
        grown = max_pool3d(grown, kernel, stride=1, padding=tuple(extent // 2 for extent in kernel))
    pairs = (grown[0] > 0)[:, None, :, None, :, None].expand(-1, 2, -1, 2, -1, 2)
    i, j, k = mask.shape
    return pairs.reshape([2 * extent for extent in grown.shape[1:]])[:i, :j, :k]
