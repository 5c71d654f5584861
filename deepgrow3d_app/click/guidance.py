"""Clicks as images: the maps that tell the network where the annotator clicked.

Both encodings have a constant scale: a map's value at a voxel depends on the clicks near it and not
on how many others there are, so clustered clicks never dim an isolated one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepgrow3d_app.click.resolution import at_full_resolution, at_half_resolution
from deepgrow3d_app.volume.geometry import Shape, Spacing

Point = tuple[float, float, float]
"""A position (i, j, k) on a grid in voxels; not necessarily an integer."""

SWEEP_ROUNDS = 6


def guidance_maps(
    foreground: Sequence[Point],
    background: Sequence[Point],
    shape: Shape,
    spacing_mm: Spacing,
    sigma_mm: float,
    device: torch.device | None = None,
) -> Tensor:
    """Gaussians around the clicks, the maximum over the clicks of a sign.

    Args:
        foreground, background: click positions (i, j, k) in voxels of the map's grid; points beyond
            the grid are allowed and fade in as they should.
        shape: of each map.
        spacing_mm: voxel edge lengths of the map's grid.
        sigma_mm: standard deviation of the kernel in mm.
        device: where the maps are made.

    Returns:
        float32 (2, i, j, k): foreground, background; 1 at a click, 0 far from all clicks.
    """
    maps = torch.zeros((2, *shape), device=device)
    for channel, points in enumerate((foreground, background)):
        for point in points:
            along = [
                torch.exp(-0.5 * ((torch.arange(extent, device=device) - position) * edge_mm / sigma_mm) ** 2)
                for extent, position, edge_mm in zip(shape, point, spacing_mm, strict=True)
            ]
            kernel = along[0][:, None, None] * along[1][None, :, None] * along[2][None, None, :]
            torch.maximum(maps[channel], kernel, out=maps[channel])
    return maps


def barrier_maps(
    image: Tensor,
    foreground: Sequence[Point],
    background: Sequence[Point],
    scale: float,
    reach_voxels: tuple[float, float],
) -> Tensor:
    """How far the intensity must stray from a click's on the best way to each voxel.

    The distance is the smallest tolerance at which region growing from a click would reach the
    voxel: the minimum over paths of the maximum over the path of |intensity - intensity at the
    click|. It is the barrier distance of Strand et al., "The minimum barrier distance" (CVIU 2013),
    measured from the click's own intensity. Noise does not add up along a path, as it does in a
    geodesic distance. The straight distance from the click is added to the tolerance, so that of two
    clicks in tissue of one intensity the nearer one has the say. All of it is computed at half
    resolution, where noise and cost are lower.

    Args:
        image: float32 (i, j, k), normalised intensities; even extents.
        foreground, background: click positions (i, j, k) in voxels of ``image``.
        scale: the difference in intensity at which a map falls to 1/e, in the units of ``image``.
        reach_voxels: the distance from a click at which a map falls to 1/e in homogeneous tissue, in
            voxels of ``image``: for the first foreground click, which means the structure, and for all
            others, which mean their surroundings.

    Returns:
        float32 (2, i, j, k): exp(-tolerance) for foreground and background clicks; 1 at a click, 0
        where there is no click of that sign.
    """
    smooth = at_half_resolution(image)
    cost = torch.full((2, *smooth.shape), torch.inf, device=image.device)
    seeds = torch.zeros_like(cost, dtype=torch.bool)
    for channel, points in enumerate((foreground, background)):
        for number, point in enumerate(points):
            i, j, k = (
                min(max(int((position + 0.5) // 2), 0), extent - 1)
                for position, extent in zip(point, smooth.shape, strict=True)
            )
            reach = reach_voxels[0 if channel == 0 and number == 0 else 1] / 2
            tolerance = (smooth - smooth[i, j, k]).abs() / scale + _distance((i, j, k), smooth) / reach
            torch.minimum(cost[channel], tolerance, out=cost[channel])
            seeds[channel, i, j, k] = True
    tolerance = minimax_distance(cost, seeds)
    return at_full_resolution(torch.exp(-tolerance)[None])[0]


def _distance(voxel: tuple[int, int, int], grid: Tensor) -> Tensor:
    """Distance in voxels from ``voxel`` to every voxel of ``grid`` (i, j, k)."""
    i, j, k = (
        (torch.arange(extent, device=grid.device) - position) ** 2
        for extent, position in zip(grid.shape, voxel, strict=True)
    )
    return (i[:, None, None] + j[None, :, None] + k[None, None, :]).sqrt()


def minimax_distance(cost: Tensor, seeds: Tensor, rounds: int = SWEEP_ROUNDS) -> Tensor:
    """The smallest possible largest cost on a 6-connected path from a seed to each voxel.

    Sweeps along each axis, forwards and backwards, ``rounds`` times: exact for every path of few
    turns, an upper bound for the most tortuous ones.

    Args:
        cost: (n, i, j, k), non-negative; each of the n maps is treated by itself.
        seeds: bool, same shape; a seed's own cost is where its paths start.
        rounds: how often all six directions are swept.

    Returns:
        Same shape as ``cost``; infinite where no seed can be reached.
    """
    distance = torch.where(seeds, cost, torch.inf)
    # Planes that lie in one piece take a fifth of the time of those across the rows, and a copy takes next to none.
    costs_along = [cost.movedim(axis, 0).contiguous().unbind() for axis in (1, 2, 3)]
    for _ in range(rounds):
        for axis, costs in enumerate(costs_along, start=1):
            stacked = distance.movedim(axis, 0).contiguous()
            distance = stacked.movedim(0, axis)
            planes = stacked.unbind()
            for order in (range(1, len(planes)), range(len(planes) - 2, -1, -1)):
                step = -1 if order.step == 1 else 1
                for position in order:
                    reached = torch.maximum(planes[position + step], costs[position])
                    torch.minimum(planes[position], reached, out=planes[position])
    return distance
