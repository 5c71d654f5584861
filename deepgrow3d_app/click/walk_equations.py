"""The equations of random walks on a grid, and how they are solved: by conjugate gradients, for several maps at once.

How likely a walk that starts at a voxel meets a foreground seed before a background seed is the potential of a network
of resistors whose seeds are held at 1 and 0, and so the solution of a Laplace equation. Three things make it fast:

- Solved is for the potential times the root of what the diagonal has for a voxel. So the equations have ones on the
  diagonal, which is what Jacobi's preconditioner is for, and seeds drop out because their scale is 0.
- Voxels are red and black as the squares of a chessboard. Neighbours differ in colour, so that the black voxels follow
  from the red ones, and the equations of the red ones alone take half of the steps (Reid, "The use of conjugate
  gradients for systems of linear equations possessing 'Property A'", SIAM J. Numer. Anal. 1972).
- Voxels of a colour, of all maps, lie in one row. A neighbour is a fixed number of places away, and every access is to
  places that lie together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

TOLERANCE = 1e-3
MAX_ITERATIONS = 150
ITERATIONS_PER_CHECK = 4

Conductances = tuple[Tensor, Tensor, Tensor]
"""How easily a walk crosses from a voxel to the next along i, j and k; each one shorter along its axis."""

State = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of the conjugate gradients: solution, residual, direction (n, i, j, k / 2), and energy (n, 1, 1, 1)."""

Iterate = Callable[[Sequence[Tensor], State], State]
"""From the couplings of red and black neighbours, see :func:`_couplings`, and a state, to the next state."""


def foreground_probability(
    conductances: Conductances, seeds: Tensor, values: Tensor, iterate: Iterate | None = None
) -> Tensor:
    """How likely a walk that starts at a voxel meets a foreground seed before a background seed.

    It is computed until the residual of each map falls below ``TOLERANCE`` of what it would be with 0 everywhere
    but at the seeds.

    Args:
        conductances: of n maps: (n, i - 1, j, k), (n, i, j - 1, k) and (n, i, j, k - 1), not negative.
        seeds: bool (n, i, j, k), at least one in each map.
        values: float32 (n, i, j, k) or fewer axes, the seeds' potentials; 0 where there is no seed.
        iterate: one step; :func:`one_iteration` where ``None``.

    Returns:
        float32 (n, i, j, k), from 0 to 1.
    """
    if seeds.shape[3] % 2:  # a further plane, which nothing leads to
        i, j, k = (functional.pad(along, (0, 1)) for along in conductances)
        padded = functional.pad(seeds, (0, 1), value=True)
        return foreground_probability((i, j, k), padded, functional.pad(values, (0, 1)), iterate)[..., :-1]
    iterate = iterate or one_iteration
    free = ~seeds
    potential = values.expand(seeds.shape).clone(memory_format=torch.contiguous_format)
    roots = _total(conductances, potential).sqrt_().mul_(free)
    scale = torch.where(free, 1 / roots, 0.0)
    couplings = _couplings(conductances, scale)
    inflow = _outflow(conductances, potential).neg_().mul_(free)
    bound = TOLERANCE**2 * dot(inflow, inflow)
    red, black = _by_colour(inflow.mul_(scale))
    residual = red + _to_red(couplings, black)
    red_roots, _ = _by_colour(roots)
    state = (torch.zeros_like(residual), residual, residual.clone(), dot(residual, residual))
    for iteration in range(MAX_ITERATIONS):
        state = iterate(couplings, state)
        if iteration % ITERATIONS_PER_CHECK == 0:
            unscaled = state[1] * red_roots
            if bool((dot(unscaled, unscaled) <= bound).all()):
                break
    solution = state[0]
    return potential.addcmul_(_together(solution, black + _to_black(couplings, solution)), scale).clamp_(0.0, 1.0)


def one_iteration(couplings: Sequence[Tensor], state: State) -> State:
    """One step of the conjugate gradients, for all maps. The state's arrays are changed."""
    solution, residual, direction, energy = state
    outflow = torch.sub(direction, _to_red(couplings, _to_black(couplings, direction)))
    # A map that is solved has no energy left: it stays as it is while the others go on.
    length = energy / dot(direction, outflow).clamp(min=1e-30)
    solution.addcmul_(length, direction)
    residual.addcmul_(length, outflow, value=-1)
    rest = dot(residual, residual)
    direction.mul_(rest / energy.clamp(min=1e-30)).add_(residual)
    return solution, residual, direction, rest


def one_iteration_anew(couplings: Sequence[Tensor], state: State) -> State:
    """As :func:`one_iteration`, in new arrays, for PyTorch's compiler.

    It fuses what is new; at the other one, which changes its arguments, that of PyTorch 2.13 fails with a KeyError.
    """
    solution, residual, direction, energy = state
    outflow = direction - _to_red(couplings, _to_black(couplings, direction))
    length = energy / dot(direction, outflow).clamp(min=1e-30)
    solution = solution + length * direction
    residual = residual - length * outflow
    rest = dot(residual, residual)
    return solution, residual, residual + rest / energy.clamp(min=1e-30) * direction, rest


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product of each map, (n, 1, 1, 1)."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)


def _to_red(couplings: Sequence[Tensor], black: Tensor) -> Tensor:
    """What the red voxels get from their black neighbours, (n, i, j, k / 2) each."""
    return _from_neighbours(couplings, black, is_black=True)


def _to_black(couplings: Sequence[Tensor], red: Tensor) -> Tensor:
    """What the black voxels get from their red neighbours: the transpose of :func:`_to_red`."""
    return _from_neighbours(couplings, red, is_black=False)


def _from_neighbours(couplings: Sequence[Tensor], given: Tensor, is_black: bool) -> Tensor:
    row = given.flatten()
    got = couplings[0] * row
    for place, coupling in enumerate(couplings[1:]):
        count = coupling.numel()
        step = row.numel() - count
        if (place % 2 == 0) is is_black:  # what lies ahead gives, and else what lies behind
            got[:count].addcmul_(coupling, row[step:])
        else:
            got[step:].addcmul_(coupling, row[:count])
    return got.view_as(given)


def _couplings(conductances: Conductances, scale: Tensor) -> list[Tensor]:
    """The scaled equations beside their diagonal: seven rows, each between red voxels and black ones.

    Two voxels that follow each other along k, from an even one on, are a red and a black one in the same place of their
    rows. In other directions a neighbour is a fixed number of places ahead or behind; where the row comes to the end of
    an axis, the coupling is 0.

    Args:
        conductances: as above.
        scale: (n, i, j, k), one over the root of a free voxel's conductances; 0 at seeds.

    Returns:
        In the same place; then for i, j and k: from red voxels to black ones ahead, and to black ones behind. Each is
        as long as there are places, less the distance to the neighbour.
    """
    i, j, k = (_by_colour(_coupled(along, scale, axis)) for axis, along in enumerate(conductances, start=1))
    odd = _begins_with_black(scale)
    # Of a pair along k, the first one is red where the row begins with red. From pair to pair it is the other one.
    in_place = torch.where(odd, k[1], k[0])
    ahead, behind = torch.where(odd, k[0], 0.0), torch.where(odd, 0.0, k[1])
    couplings = [in_place.flatten()]
    for axis, both in enumerate((i, j, (ahead, behind)), start=2):
        step = math.prod(in_place.shape[axis:])
        couplings += [row.flatten()[: row.numel() - step].contiguous() for row in both]
    return couplings


def _coupled(conductance: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Between each voxel (n, i, j, k) and the next one along ``axis``; 0 for the last one."""
    last = scale.shape[axis] - 1
    coupled = torch.zeros_like(scale)
    inner = coupled.narrow(axis, 0, last)
    inner.copy_(conductance)
    inner.mul_(scale.narrow(axis, 0, last)).mul_(scale.narrow(axis, 1, last))
    return coupled


def _begins_with_black(grid: Tensor) -> Tensor:
    """Of the rows along k of ``grid`` (n, i, j, k), those whose first voxel is black: bool (i, j, 1)."""
    i, j = (torch.arange(extent, device=grid.device) for extent in grid.shape[1:3])
    return ((i[:, None] + j) % 2 == 1)[..., None]


def _by_colour(grid: Tensor) -> tuple[Tensor, Tensor]:
    """The red and the black voxels of ``grid`` (n, i, j, k) with an even k: two of (n, i, j, k / 2)."""
    even, odd = grid.unflatten(3, (-1, 2)).unbind(4)
    is_black = _begins_with_black(grid)
    return torch.where(is_black, odd, even), torch.where(is_black, even, odd)


def _together(red: Tensor, black: Tensor) -> Tensor:
    """The inverse of :func:`_by_colour`."""
    is_black = _begins_with_black(red)
    pairs = torch.where(is_black, black, red), torch.where(is_black, red, black)
    return torch.stack(pairs, dim=4).flatten(3)


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
