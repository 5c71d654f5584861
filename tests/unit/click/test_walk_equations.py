import numpy as np
import pytest
import torch

from deepgrow3d_app.click.random_walk import conductances_of, walker_seeds
from deepgrow3d_app.click.walk_equations import foreground_probability, one_iteration

CPU = torch.device("cpu")


def dense_probability(conductances, seeds, values):
    """The same potentials from the equations of all voxels at once; everything (i, j, k), as float64."""
    shape = seeds.shape
    numbers = np.arange(seeds.size).reshape(shape)
    laplacian = np.zeros((seeds.size, seeds.size))
    for axis, along in enumerate(conductances):
        extent = shape[axis]
        before = numbers.take(range(extent - 1), axis).ravel()
        after = numbers.take(range(1, extent), axis).ravel()
        for a, b, conductance in zip(before, after, along.ravel(), strict=True):
            laplacian[[a, b], [a, b]] += conductance
            laplacian[[a, b], [b, a]] -= conductance
    free, held = numbers[~seeds], numbers[seeds]
    potential = np.where(seeds, values, 0.0).astype(float)
    potential[~seeds] = np.linalg.solve(laplacian[np.ix_(free, free)], -laplacian[np.ix_(free, held)] @ values[seeds])
    return potential


def random_problem(seed, shape=(5, 4, 6)):
    """Conductances over two orders of magnitude, and a tenth of the voxels as seeds of either kind."""
    generator = np.random.default_rng(seed)
    shapes = [tuple(extent - (axis == other) for other, extent in enumerate(shape)) for axis in range(3)]
    conductances = [np.exp(generator.uniform(np.log(0.01), 0, one)).astype(np.float32) for one in shapes]
    seeds = generator.random(shape) < 0.1
    seeds[0, 0, 0] = seeds[-1, -1, -1] = True
    values = (seeds & (generator.random(shape) < 0.5)).astype(np.float32)
    values[0, 0, 0], values[-1, -1, -1] = 1.0, 0.0
    return conductances, seeds, values


@pytest.mark.parametrize("shape", [(5, 4, 6), (4, 5, 7), (3, 3, 3), (2, 6, 1), (1, 1, 8), (7, 1, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_probabilities_solve_the_equations_of_the_walk(seed, shape):
    conductances, seeds, values = random_problem(seed, shape)
    i, j, k = (torch.from_numpy(along)[None] for along in conductances)
    found = foreground_probability((i, j, k), torch.from_numpy(seeds)[None], torch.from_numpy(values))[0]
    np.testing.assert_allclose(found.numpy(), dense_probability(conductances, seeds, values), atol=5e-3)


def test_several_maps_are_solved_as_each_alone():
    problems = [random_problem(seed) for seed in range(4)]
    i, j, k = (torch.from_numpy(np.stack([problem[0][axis] for problem in problems])) for axis in range(3))
    seeds = torch.from_numpy(np.stack([problem[1] for problem in problems]))
    values = torch.from_numpy(np.stack([problem[2] for problem in problems]))
    together = foreground_probability((i, j, k), seeds, values)
    for n, found in enumerate(together):
        alone = foreground_probability((i[n, None], j[n, None], k[n, None]), seeds[n, None], values[n])[0]
        torch.testing.assert_close(found, alone, atol=5e-3, rtol=0)


def chain(conductance):
    """A row of voxels with foreground at its start and background at its end."""
    extent = conductance.numel() + 1
    seeds = torch.zeros(1, extent, 1, 1, dtype=torch.bool)
    seeds[0, 0] = seeds[0, -1] = True
    values = torch.zeros(extent, 1, 1)
    values[0] = 1.0
    along = conductance.reshape(1, -1, 1, 1), torch.zeros(1, extent, 0, 1), torch.zeros(1, extent, 1, 0)
    return foreground_probability(along, seeds, values).flatten()


def test_along_a_chain_the_potential_falls_evenly():
    expected = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    torch.testing.assert_close(chain(torch.full((5,), 0.3)), expected, atol=2e-3, rtol=0)


def test_along_a_chain_the_potential_falls_by_the_resistances():
    """Resistances of 1, 1 and 8 in a row: a tenth, a tenth and eight tenths of the fall."""
    expected = torch.tensor([1.0, 0.9, 0.8, 0.0])
    torch.testing.assert_close(chain(torch.tensor([1.0, 1.0, 0.125])), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("axis", range(3))
def test_half_of_the_voxels_are_solved_for(axis):
    """Eight free voxels in a row are four red ones, and conjugate gradients need a step for each unknown."""
    steps = []

    def counted(couplings, state):
        steps.append(state)
        return one_iteration(couplings, state)

    shape = [1, 1, 1]
    shape[axis] = 10
    seeds = torch.zeros(shape, dtype=torch.bool)
    values = torch.zeros(shape)
    seeds.view(-1)[[0, 9]] = True
    values.view(-1)[0] = 1.0
    i, j, k = (torch.full([1, *(n - (at == one) for at, n in enumerate(shape))], 0.5) for one in range(3))
    found = foreground_probability((i, j, k), seeds[None], values, counted).flatten()
    torch.testing.assert_close(found, torch.arange(9, -1, -1) / 9, atol=1e-4, rtol=0)
    assert 4 <= len(steps) <= 5, "it is asked at the first step and after every four"


def test_without_foreground_nothing_is_foreground():
    seeds, values = walker_seeds(torch.Size((6, 6, 6)), [], [(3.0, 3.0, 3.0)], CPU)
    i, j, k = (along[None] for along in conductances_of(torch.rand(6, 6, 6), 0.1))
    assert not foreground_probability((i, j, k), seeds[None], values).any()
