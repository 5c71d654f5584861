"""The random walker as an input of the network: which voxels hang together with which clicks.

A walk that starts at a voxel and crosses strong edges rarely meets either a foreground click first, or
a background click or the region's border (Grady, "Random walks for image segmentation", PAMI 2006).
How likely it meets the foreground first is a good guess of the mask in tissue with visible borders,
and says little elsewhere: the network learns when to believe it. Everything is computed on the device
of the image, for several maps at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepgrow3d_app.click.guidance import Point
from deepgrow3d_app.click.resolution import at_full_resolution, at_half_resolution
from deepgrow3d_app.click.walk_equations import Conductances, foreground_probability

SEED_RADIUS_VOXELS = 1.5
LEAST_CONDUCTANCE = 1e-3
"""Of the highest edge. It bounds how badly conditioned the equations are, and with it the time a click takes."""

MAX_LOG_ODDS = 4.0


def walker_maps(
    image: Tensor, foreground: Sequence[Point], background: Sequence[Point], sigmas: Sequence[float]
) -> Tensor:
    """What a random walker says of each voxel, once for each of ``sigmas``.

    The walk is computed at half resolution, where noise and cost are lower. The border of the patch is background:
    without it, a single foreground click would claim everything.

    Args:
        image: float32 (i, j, k), normalised intensities; even extents.
        foreground, background: click positions (i, j, k) in voxels of ``image``.
        sigmas: differences in intensity at which a walk crosses less easily by a factor of 0.61.

    Returns:
        float32 (sigmas, i, j, k): log-odds of the foreground, from -1 to +1 for odds of e to the power of
        -``MAX_LOG_ODDS`` to +``MAX_LOG_ODDS``.
    """
    smooth = at_half_resolution(image)
    halves = [[_half_resolution(point) for point in points] for points in (foreground, background)]
    seeds, values = walker_seeds(smooth.shape, halves[0], halves[1], image.device)
    conductances = [conductances_of(smooth, sigma) for sigma in sigmas]
    i, j, k = (torch.stack(along) for along in zip(*conductances, strict=True))
    probability = foreground_probability((i, j, k), seeds.expand(len(sigmas), *seeds.shape), values)
    return at_full_resolution(log_odds_of(probability)[None])[0]


def log_odds_of(probability: Tensor) -> Tensor:
    """From -1 to +1, as :func:`walker_maps` has them."""
    return torch.logit(probability, eps=1e-4).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS) / MAX_LOG_ODDS


def walker_seeds(
    shape: torch.Size, foreground: Sequence[Point], background: Sequence[Point], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Balls of ``SEED_RADIUS_VOXELS`` around the clicks, and background on the border.

    Where balls meet, the nearest click decides: the order of the clicks means nothing.

    Args:
        shape: (i, j, k) of the walk's grid.
        foreground, background: clicks in voxels of that grid; a click beyond it is drawn on its border.
        device: where the maps are made.

    Returns:
        Which voxels are seeds, bool (i, j, k), and their probability of foreground, float32 (i, j, k), 0 elsewhere.
    """
    seeds = torch.ones(shape, dtype=torch.bool, device=device)
    seeds[1:-1, 1:-1, 1:-1] = False
    values = torch.zeros(shape, device=device)
    nearest = torch.full(shape, SEED_RADIUS_VOXELS**2, device=device)
    axes = [torch.arange(extent, dtype=torch.float32, device=device) for extent in shape]
    for value, points in ((1.0, foreground), (0.0, background)):
        for point in points:
            i, j, k = (
                (axis - min(max(position, 0.0), axis.numel() - 1.0)) ** 2
                for axis, position in zip(axes, point, strict=True)
            )
            distance = i[:, None, None] + j[None, :, None] + k[None, None, :]
            nearer = distance < nearest
            nearest = torch.where(nearer, distance, nearest)
            seeds |= nearer
            values = torch.where(nearer, value, values)
    return seeds, values


def conductances_of(image: Tensor, sigma: float) -> Conductances:
    """How easily a walk crosses between the neighbours of ``image`` (i, j, k) or (n, i, j, k)."""
    i, j, k = (
        torch.exp(-0.5 * (torch.diff(image, dim=axis) / sigma) ** 2) + LEAST_CONDUCTANCE for axis in (-3, -2, -1)
    )
    return i, j, k


def _half_resolution(point: Point) -> Point:
    i, j, k = ((position - 0.5) / 2 for position in point)
    return i, j, k
