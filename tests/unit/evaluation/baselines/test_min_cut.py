"""Grids so small that every labelling can be tried."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.evaluation.baselines.min_cut import min_cut
from deepgrow3d_app.evaluation.baselines.neighbours import neighbour_pairs


def cost(inside, pairs, pair_costs, preference):
    divided = inside[pairs[0]] != inside[pairs[1]]
    return (
        pair_costs[divided].sum() + np.maximum(-preference[inside], 0).sum() + np.maximum(preference[~inside], 0).sum()
    )


def test_neighbours_of_a_row():
    pairs, differences = neighbour_pairs(np.array([0.0, 0.5, -1.0]).reshape(1, 3, 1))
    np.testing.assert_array_equal(pairs, [[0, 1], [1, 2]])
    np.testing.assert_array_equal(differences, [0.5, 1.5])


def test_a_cube_of_8_voxels_has_12_pairs():
    pairs, _ = neighbour_pairs(np.zeros((2, 2, 2)))
    assert {tuple(pair) for pair in pairs.T} == {
        (a, b) for a, b in itertools.combinations(range(8), 2) if (a ^ b) in (1, 2, 4)
    }


def test_a_row_is_cut_at_its_weakest_link():
    pairs = np.array([[0, 1, 2], [1, 2, 3]], dtype=np.int32)
    preference = np.array([10.0, 0.0, 0.0, -10.0]).reshape(4, 1, 1)
    inside = min_cut(pairs, np.array([3.0, 1.0, 2.0]), preference)
    assert inside.ravel().tolist() == [True, True, False, False]


def test_a_voxel_gives_way_to_neighbours_that_hold_it_dearly():
    pairs = np.array([[0, 1], [1, 2]], dtype=np.int32)
    preference = np.array([10.0, -1.0, 10.0]).reshape(3, 1, 1)
    assert min_cut(pairs, np.array([0.6, 0.6]), preference).ravel().tolist() == [True, True, True]
    assert min_cut(pairs, np.array([0.4, 0.4]), preference).ravel().tolist() == [True, False, True]


@given(
    st.lists(st.integers(0, 3000), min_size=12, max_size=12), st.lists(st.integers(-3000, 3000), min_size=8, max_size=8)
)
def test_no_other_labelling_is_cheaper(links, wishes):
    """All 256 labellings of 2 x 2 x 2 voxels; costs in thousandths, as the solver rounds them."""
    pairs, _ = neighbour_pairs(np.zeros((2, 2, 2)))
    pair_costs, preference = np.array(links) / 1000, np.array(wishes) / 1000
    found = min_cut(pairs, pair_costs, preference.reshape(2, 2, 2)).ravel()
    labellings = (np.array(labels) for labels in itertools.product([False, True], repeat=8))
    cheapest = min(cost(inside, pairs, pair_costs, preference) for inside in labellings)
    assert cost(found, pairs, pair_costs, preference) <= cheapest + 1e-9
