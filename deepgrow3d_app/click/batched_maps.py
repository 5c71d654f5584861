"""The network's click maps for many patches at once, as a GPU wants them: few calls, on large arrays.

The same numbers as :mod:`~deepgrow3d_app.click.guidance` and :mod:`~deepgrow3d_app.click.random_walk` give for one
patch, but for rounding. On a CPU those cost less: there, calls are cheap and voxels are not.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepgrow3d_app.click.guidance import SWEEP_ROUNDS, Point
from deepgrow3d_app.click.random_walk import SEED_RADIUS_VOXELS, conductances_of, log_odds_of
from deepgrow3d_app.click.walk_equations import (
    Iterate,
    State,
    foreground_probability,
    one_iteration,
    one_iteration_anew,
)
from deepgrow3d_app.volume.geometry import Shape, Spacing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ClickTable:
    """The clicks on n patches, as many places for each sign as the patch with most clicks needs.

    Attributes:
        points: float32 (n, 2, places, 3), (i, j, k) in patch voxels, foreground first.
        is_there: bool (n, 2, places); elsewhere, ``points`` means nothing.
    """

    points: Tensor
    is_there: Tensor

    @classmethod
    def of(
        cls, foreground: Sequence[Sequence[Point]], background: Sequence[Sequence[Point]], device: torch.device
    ) -> ClickTable:
        """The clicks of each patch."""
        patches = list(zip(foreground, background, strict=True))
        places = max((len(clicks) for patch in patches for clicks in patch), default=0)
        points = torch.zeros(len(patches), 2, places, 3)
        is_there = torch.zeros(len(patches), 2, places, dtype=torch.bool)
        for number, patch in enumerate(patches):
            for sign, clicks in enumerate(patch):
                if clicks:
                    points[number, sign, : len(clicks)] = torch.tensor(clicks, dtype=torch.float32)
                    is_there[number, sign, : len(clicks)] = True
        return cls(points.to(device), is_there.to(device))

    @property
    def places(self) -> int:
        """Of each sign."""
        return self.points.shape[2]


def guidance_of(clicks: ClickTable, shape: Shape, spacing_mm: Spacing, sigma_mm: float) -> Tensor:
    """As :func:`~deepgrow3d_app.click.guidance.guidance_maps`: float32 (n, 2, i, j, k)."""
    maps = torch.zeros((*clicks.points.shape[:2], *shape), device=clicks.points.device)
    i, j, k = (
        torch.exp(-0.5 * ((_numbers(extent, maps) - clicks.points[..., axis, None]) * edge_mm / sigma_mm) ** 2)
        for axis, (extent, edge_mm) in enumerate(zip(shape, spacing_mm, strict=True))
    )
    i = i * clicks.is_there[..., None]
    for place in range(clicks.places):
        plane = i[:, :, place, :, None] * j[:, :, place, None, :]
        torch.maximum(maps, plane[..., None] * k[:, :, place, None, None, :], out=maps)
    return maps


def barriers_of(smooth: Tensor, clicks: ClickTable, scale: float, reach_voxels: tuple[float, float]) -> Tensor:
    """As :func:`~deepgrow3d_app.click.guidance.barrier_maps`.

    Args:
        smooth: float32 (n, i, j, k), images at half resolution.
        clicks: in voxels of the whole images.
        scale, reach_voxels: as there.

    Returns:
        float32 (n, 2, i, j, k) at half resolution.
    """
    shape = smooth.shape[1:]
    extents = torch.tensor(shape, device=smooth.device)
    voxels = ((clicks.points + 0.5) // 2).long().clamp(min=0).minimum(extents - 1)
    cost = torch.full((len(smooth), 2, *shape), torch.inf, device=smooth.device)
    seeds = torch.zeros_like(cost, dtype=torch.bool)
    flat = (voxels[..., 0] * shape[1] + voxels[..., 1]) * shape[2] + voxels[..., 2]
    own = smooth.flatten(1).gather(1, flat.flatten(1)).reshape(flat.shape)
    for place in range(clicks.places):
        reach = torch.full((2,), reach_voxels[1] / 2, device=smooth.device)
        if place == 0:
            reach[0] = reach_voxels[0] / 2
        distance = squared_distances(voxels[:, :, place].float(), shape).sqrt()
        tolerance = (smooth[:, None] - _wide(own[:, :, place])).abs() / scale + distance / _wide(reach)
        is_there = _wide(clicks.is_there[:, :, place])
        torch.minimum(cost, torch.where(is_there, tolerance, torch.inf), out=cost)
        seeds |= is_there & (distance == 0)
    tolerance = minimax_by_doubling(cost.flatten(0, 1), seeds.flatten(0, 1)).reshape(cost.shape)
    return torch.exp(-tolerance)


def minimax_by_doubling(cost: Tensor, seeds: Tensor, rounds: int = SWEEP_ROUNDS) -> Tensor:
    """As :func:`~deepgrow3d_app.click.guidance.minimax_distance`, to the last digit.

    A sweep is x -> min(d, max(x, c)) from voxel to voxel; two such steps are one of the same form. So it is done in
    steps of 1, 2, 4, ... voxels (Hillis and Steele, "Data parallel algorithms", CACM 1986): log n calls, not n.
    """
    distance = torch.where(seeds, cost, torch.inf)
    walls = [(axis, backwards, _walls(cost, axis, backwards)) for axis in (1, 2, 3) for backwards in (False, True)]
    for _ in range(rounds):
        for axis, backwards, highest in walls:
            for level, wall in enumerate(highest):
                near, far = _shifted(distance, axis, 2**level, backwards)
                torch.minimum(near, torch.maximum(far, wall), out=near)
    return distance


def _walls(cost: Tensor, axis: int, backwards: bool) -> list[Tensor]:
    """For steps of 1, 2, 4, ... voxels, the highest cost on the step: where it ends, and it is not beyond the array."""
    highest = cost
    walls = []
    shift = 1
    while shift < cost.shape[axis]:
        near, far = _shifted(highest, axis, shift, backwards)
        walls.append(near.contiguous())
        together = highest.clone()
        _shifted(together, axis, shift, backwards)[0].copy_(torch.maximum(near, far))
        highest = together
        shift *= 2
    return walls


def _shifted(array: Tensor, axis: int, shift: int, backwards: bool) -> tuple[Tensor, Tensor]:
    """Two views: of the voxels that a step of ``shift`` ends in, and of those that it starts from."""
    count = array.shape[axis] - shift
    upper, lower = array.narrow(axis, shift, count), array.narrow(axis, 0, count)
    return (lower, upper) if backwards else (upper, lower)


def walkers_of(smooth: Tensor, clicks: ClickTable, sigmas: Sequence[float]) -> Tensor:
    """As :func:`~deepgrow3d_app.click.random_walk.walker_maps`.

    Args:
        smooth: float32 (n, i, j, k), images at half resolution.
        clicks: in voxels of the whole images.
        sigmas: as there.

    Returns:
        float32 (n, sigmas, i, j, k) at half resolution.
    """
    seeds, values = _walker_seeds(smooth.shape, clicks)
    conductances = [conductances_of(smooth, sigma) for sigma in sigmas]
    i, j, k = (torch.cat(along) for along in zip(*conductances, strict=True))
    count = len(sigmas)
    seeds, values = seeds.repeat(count, 1, 1, 1), values.repeat(count, 1, 1, 1)
    probability = foreground_probability((i, j, k), seeds, values, _iteration_on(smooth.device))
    return log_odds_of(probability).reshape(count, *smooth.shape).transpose(0, 1)


@functools.cache
def _iteration_on(device: torch.device) -> Iterate:
    """On a GPU, some thirty calls become a few kernels, where PyTorch's compiler for it works."""
    if device.type == "cpu" or importlib.util.find_spec("triton") is None:
        return one_iteration
    return _CompiledIteration()


class _CompiledIteration:
    """One iteration as a few kernels; call by call, once that turns out not to work.

    That Triton is installed is not enough: it looks for a C compiler, Python's headers and a folder to write to, which
    containers seldom have.
    """

    def __init__(self) -> None:
        self._iterate: Iterate = torch.compile(one_iteration_anew)

    def __call__(self, couplings: Sequence[Tensor], state: State) -> State:
        try:
            return self._iterate(couplings, state)  # it changes nothing that it is given
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self._iterate is one_iteration:
                raise
            fault = next(iter(str(error).splitlines()), type(error).__name__)
            logger.warning("Click maps are computed more slowly: their kernels cannot be compiled (%s)", fault)
            self._iterate = one_iteration
            return one_iteration(couplings, state)


def _walker_seeds(shape: torch.Size, clicks: ClickTable) -> tuple[Tensor, Tensor]:
    """As :func:`~deepgrow3d_app.click.random_walk.walker_seeds`: bool and float32, (n, i, j, k)."""
    device = clicks.points.device
    seeds = torch.ones(shape, dtype=torch.bool, device=device)
    seeds[:, 1:-1, 1:-1, 1:-1] = False
    values = torch.zeros(shape, device=device)
    nearest = torch.full(shape, SEED_RADIUS_VOXELS**2, device=device)
    last = torch.tensor(shape[1:], device=device, dtype=torch.float32) - 1
    points = ((clicks.points - 0.5) / 2).clamp(min=0).minimum(last)
    for sign, value in enumerate((1.0, 0.0)):
        for place in range(clicks.places):
            distance = squared_distances(points[:, sign, place], shape[1:])
            nearer = (distance < nearest) & clicks.is_there[:, sign, place, None, None, None]
            nearest = torch.where(nearer, distance, nearest)
            seeds |= nearer
            values = torch.where(nearer, value, values)
    return seeds, values


def squared_distances(points: Tensor, shape: Sequence[int]) -> Tensor:
    """From each of the ``points`` (..., 3) to every voxel: float32 (..., i, j, k), in voxels squared."""
    i, j, k = ((_numbers(extent, points) - points[..., axis, None]) ** 2 for axis, extent in enumerate(shape))
    return i[..., :, None, None] + j[..., None, :, None] + k[..., None, None, :]


def _numbers(extent: int, like: Tensor) -> Tensor:
    return torch.arange(extent, dtype=torch.float32, device=like.device)


def _wide(values: Tensor) -> Tensor:
    """With three axes more, for voxels."""
    return values[..., None, None, None]
