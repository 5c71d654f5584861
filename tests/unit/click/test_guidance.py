import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import reconstruction

from deepgrow3d_app.click.guidance import barrier_maps, guidance_maps, minimax_distance

SHAPE = (8, 10, 12)
points = st.lists(st.tuples(st.floats(-3, 10), st.floats(-3, 12), st.floats(-3, 14)), max_size=4)


def test_a_kernel_is_measured_in_millimetres():
    maps = guidance_maps([(4.0, 5.0, 6.0)], [], SHAPE, spacing_mm=(1.0, 2.0, 4.0), sigma_mm=4.0)
    one_sigma = math.exp(-0.5)
    assert maps[0, 4, 5, 6] == 1
    assert maps[0, 0, 5, 6] == pytest.approx(one_sigma)
    assert maps[0, 4, 3, 6] == pytest.approx(one_sigma)
    assert maps[0, 4, 5, 7] == pytest.approx(one_sigma)
    assert not maps[1].any()


@given(points, points)
def test_maps_are_the_maximum_over_clicks_whatever_their_order(foreground, background):
    arguments = (SHAPE, (1.0, 1.0, 2.0), 2.0)
    together = guidance_maps(foreground, background, *arguments)
    backwards = guidance_maps(foreground[::-1], background[::-1], *arguments)
    alone = [guidance_maps([point], [], *arguments)[0] for point in foreground]
    assert torch.equal(together, backwards)
    assert torch.equal(together[0], torch.stack([torch.zeros(SHAPE), *alone]).amax(dim=0))


def test_more_clicks_never_dim_an_isolated_one():
    cluster = [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (1.0, 2.0, 1.0)]
    isolated = (6.0, 8.0, 10.0)
    maps = guidance_maps([*cluster, isolated], [], SHAPE, (1.0, 1.0, 1.0), 2.0)
    assert maps[0, 6, 8, 10] == 1


def test_minimax_distance_on_a_line_is_the_highest_wall_so_far():
    cost = torch.tensor([0.0, 1.0, 5.0, 2.0, 7.0, 3.0]).reshape(1, 1, 1, 6)
    seeds = torch.zeros_like(cost, dtype=torch.bool)
    seeds[..., 0] = True
    assert minimax_distance(cost, seeds).flatten().tolist() == [0, 1, 5, 5, 7, 7]


def test_minimax_distance_goes_around_a_wall_with_a_gap():
    cost = torch.zeros(1, 1, 5, 5)
    cost[0, 0, :, 2] = 9
    cost[0, 0, 4, 2] = 1
    seeds = torch.zeros_like(cost, dtype=torch.bool)
    seeds[0, 0, 0, 0] = True
    assert minimax_distance(cost, seeds)[0, 0, 0, 4] == 1


def test_minimax_distance_is_grey_reconstruction_on_random_costs():
    cost = np.abs(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(12, 13, 14)), 1.0))
    seeds = np.zeros(cost.shape, dtype=bool)
    seeds[6, 6, 6] = True
    marker = np.where(seeds, cost, cost.max())
    cross = ndimage.generate_binary_structure(3, 1)
    expected = reconstruction(marker, cost, method="erosion", footprint=cross)
    found = minimax_distance(torch.from_numpy(cost)[None], torch.from_numpy(seeds)[None], rounds=30)[0]
    np.testing.assert_allclose(found.numpy(), expected)


def test_barrier_maps_fill_a_homogeneous_organ_and_stop_at_its_border():
    image = torch.full((16, 16, 16), -1.0)
    image[2:10, 2:10, 2:14] = 0.5
    maps = barrier_maps(image, [(5.0, 5.0, 5.0)], [(14.0, 14.0, 14.0)], 0.15, (1e6, 1e6))
    assert maps[0, 5, 5, 10] > 0.95
    assert maps[0, 14, 14, 4] < 0.01
    assert maps[1, 14, 14, 4] > 0.95
    assert maps[1, 5, 5, 5] < 0.01
    assert not barrier_maps(image, [(5.0, 5.0, 5.0)], [], 0.15, (1e6, 1e6))[1].any()


def test_in_homogeneous_tissue_barrier_maps_fade_with_distance():
    image = torch.zeros(32, 8, 8)
    maps = barrier_maps(image, [(1.0, 3.0, 3.0)], [(1.0, 3.0, 3.0)], 0.15, reach_voxels=(20.0, 5.0))
    assert maps[0, 21, 3, 3] == pytest.approx(math.exp(-1), abs=0.05)
    assert maps[1, 6, 3, 3] == pytest.approx(math.exp(-1), abs=0.1)
