"""The random walker as an input of the network: which voxels hang together with which clicks.

A walk that starts at a voxel and crosses strong edges rarely meets either a foreground click first, or
a background click or the region's border (Grady, "Random walks for image segmentation", PAMI 2006).
How likely it meets the foreground first is a good guess of the mask in tissue with visible borders,
and says little elsewhere: the network learns when to believe it. Everything is computed on the device
of the image, for several maps at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from deepgrow3d_app.click.guidance import Point, at_half_resolution

SEED_RADIUS_VOXELS = 1.5
LEAST_CONDUCTANCE = 1e-3
"""Of the highest edge. It bounds how badly conditioned the equations are, and with it the time a click takes."""

TOLERANCE = 1e-3
MAX_ITERATIONS = 300
ITERATIONS_PER_CHECK = 8
MAX_LOG_ODDS = 4.0

Conductances = tuple[Tensor, Tensor, Tensor]
"""How easily a walk crosses from a voxel to the next along i, j and k; each one shorter along its axis."""

State = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of the conjugate gradients: solution, residual, direction (n, i, j, k), and energy (n, 1, 1, 1)."""

Iterate = Callable[[Sequence[Tensor], State], State]
"""From the couplings of neighbours along i, j and k, and a state, to the next state."""


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
    return functional.interpolate(log_odds_of(probability)[None], scale_factor=2, mode="trilinear")[0]


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


def foreground_probability(
    conductances: Conductances, seeds: Tensor, values: Tensor, iterate: Iterate | None = None
) -> Tensor:
    """How likely a walk that starts at a voxel meets a foreground seed before a background seed.

    That is the potential of a network of resistors whose seeds are held at 1 and 0, and so the solution of a
    Laplace equation. It is found by conjugate gradients with Jacobi's preconditioner until the residual of each
    map falls below ``TOLERANCE`` of what it was at first.

    The equations are solved for the potential times the root of what their diagonal has for a voxel: so they have
    ones on the diagonal, which is what the preconditioner is for, and seeds drop out because their scale is 0.

    Args:
        conductances: of n maps: (n, i - 1, j, k), (n, i, j - 1, k) and (n, i, j, k - 1), positive.
        seeds: bool (n, i, j, k), at least one in each map.
        values: float32 (n, i, j, k) or fewer axes, the seeds' potentials; 0 where there is no seed.
        iterate: one step; :func:`one_iteration` where ``None``.

    Returns:
        float32 (n, i, j, k), from 0 to 1.
    """
    iterate = iterate or one_iteration
    free = ~seeds
    potential = values.expand(seeds.shape).clone(memory_format=torch.contiguous_format)
    roots = _total(conductances, potential).sqrt_().mul_(free)
    scale = torch.where(free, 1 / roots, 0.0)
    couplings = _couplings(conductances, scale)
    residual = _outflow(conductances, potential).neg_().mul_(free)
    bound = TOLERANCE**2 * dot(residual, residual)
    residual.mul_(scale)
    state = (torch.zeros_like(residual), residual, residual.clone(), dot(residual, residual))
    for iteration in range(MAX_ITERATIONS):
        state = iterate(couplings, state)
        if iteration % ITERATIONS_PER_CHECK == 0:
            unscaled = state[1] * roots
            if bool((dot(unscaled, unscaled) <= bound).all()):
                break
    return potential.addcmul_(state[0], scale).clamp_(0.0, 1.0)


def one_iteration(couplings: Sequence[Tensor], state: State) -> State:
    """One step of the conjugate gradients, for all maps. The state's arrays are changed."""
    solution, residual, direction, energy = state
    outflow = direction.clone()
    along, out = direction.flatten(), outflow.view(-1)
    for coupling in couplings:
        step = along.numel() - coupling.numel()
        out[: coupling.numel()].addcmul_(coupling, along[step:], value=-1)
        out[step:].addcmul_(coupling, along[: coupling.numel()], value=-1)
    # A map that is solved has no energy left: it stays as it is while the others go on.
    length = energy / dot(direction, outflow).clamp(min=1e-30)
    solution.addcmul_(length, direction)
    residual.addcmul_(length, outflow, value=-1)
    rest = dot(residual, residual)
    direction.mul_(rest / energy.clamp(min=1e-30)).add_(residual)
    return solution, residual, direction, rest


def _couplings(conductances: Conductances, scale: Tensor) -> list[Tensor]:
    """The scaled equations beside their diagonal: for each axis, between a voxel and the next one, along all voxels.

    Along all voxels of all maps in one row, a neighbour is a fixed number of voxels away, and every access is to
    voxels that lie in a row, which is fastest. Where the row comes to the end of an axis, there is no coupling.

    Args:
        conductances: as above.
        scale: (n, i, j, k), one over the root of a free voxel's conductances; 0 at seeds.

    Returns:
        For each axis a row of as many as there are voxels, less the distance to the neighbour.
    """
    couplings = []
    for axis, conductance in enumerate(conductances, start=1):
        last = scale.shape[axis] - 1
        coupling = torch.zeros_like(scale)
        coupling.narrow(axis, 0, last).copy_(conductance)
        coupling.narrow(axis, 0, last).mul_(scale.narrow(axis, 0, last)).mul_(scale.narrow(axis, 1, last))
        distance = math.prod(scale.shape[axis + 1 :])
        couplings.append(coupling.flatten()[: scale.numel() - distance])
    return couplings


def _outflow(conductances: Conductances, potential: Tensor) -> Tensor:
    """Current that leaves each voxel (n, i, j, k) for its neighbours."""
    outflow = torch.zeros_like(potential)
    for axis, conductance in enumerate(conductances, start=1):
        current = torch.diff(potential, dim=axis).mul_(conductance)
        last = potential.shape[axis] - 1
        outflow.narrow(axis, 0, last).sub_(current)
        outflow.narrow(axis, 1, last).add_(current)
    return outflow


def _total(conductances: Conductances, like: Tensor) -> Tensor:
    """Sum of the conductances between each voxel (n, i, j, k) and its neighbours."""
    total = torch.zeros_like(like)
    for axis, conductance in enumerate(conductances, start=1):
        last = like.shape[axis] - 1
        total.narrow(axis, 0, last).add_(conductance)
        total.narrow(axis, 1, last).add_(conductance)
    return total


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product of each map, (n, 1, 1, 1)."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)


def _half_resolution(point: Point) -> Point:
    i, j, k = ((position - 0.5) / 2 for position in point)
    return i, j, k
