import numpy as np
import pytest

from deepgrow3d_app.evaluation.baselines.neighbours import neighbour_pairs
from deepgrow3d_app.evaluation.baselines.random_walker import RandomWalker, foreground_probability
from deepgrow3d_app.evaluation.baselines.region import BACKGROUND, FOREGROUND, UNKNOWN


def row(*values, dtype=float):
    return np.array(values, dtype=dtype).reshape(-1, 1, 1)


def test_probabilities_of_a_row_by_hand():
    """Three resistors of 1, 1 and 2 ohm from potential 1 to 0: it falls by a quarter, a quarter and a half."""
    seeds = row(FOREGROUND, UNKNOWN, UNKNOWN, BACKGROUND, dtype=np.int8)
    pairs, _ = neighbour_pairs(row(0, 0, 0, 0))
    probability = foreground_probability(pairs, np.array([1.0, 1.0, 0.5]), seeds)
    assert probability.ravel() == pytest.approx([1, 0.75, 0.5, 0], abs=0.01)


def test_where_every_voxel_is_a_seed_nothing_is_left_to_solve():
    seeds = row(FOREGROUND, BACKGROUND, dtype=np.int8)
    pairs, _ = neighbour_pairs(row(0, 0))
    assert foreground_probability(pairs, np.ones(1), seeds).ravel().tolist() == [1, 0]


def test_an_evaluation_is_told_all_parameters():
    details = RandomWalker(sigma=0.1, extent_mm=100.0, voxel_count=1000).record.details
    assert details == {"sigma": "0.1", "extent_mm": "100.0", "voxel_count": "1000"}
