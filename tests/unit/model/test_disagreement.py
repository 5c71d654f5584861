from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deepgrow3d_app.model.disagreement import body_seeds, disagreement
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.volume import Volume

SHAPE = (12, 12, 12)
VOLUME = Volume(np.zeros(SHAPE, np.int16), np.eye(4), name="v")


def drawn(low, high) -> Any:
    """A prediction of a box."""
    inside = np.zeros(SHAPE, np.uint8)
    inside[low:high, 2:10, 2:10] = 1
    return SimpleNamespace(boxed=BoxedMask.of(inside))


def test_whoever_draws_the_same_from_everywhere_agrees():
    assert disagreement(lambda volume, clicks: drawn(2, 10), VOLUME, [(3, 3, 3)]) == 0


def test_masks_that_do_not_meet_disagree_wholly_and_seeds_count_equally():
    def predict(volume, clicks):
        (click,) = clicks
        if click.index == (1, 1, 1):
            return drawn(0, 4)  # whose deepest voxel leads elsewhere
        return drawn(6, 10)

    assert disagreement(predict, VOLUME, [(1, 1, 1)]) == 1
    assert disagreement(predict, VOLUME, [(1, 1, 1), (7, 7, 7)]) == pytest.approx(0.5)


def test_seeds_lie_in_tissue():
    array = np.full((40, 40, 40), -1000, np.int16)
    array[:20] = 50
    seeds = body_seeds(Volume(array, np.eye(4), name="v"))
    assert seeds == [(10, j, k) for j in (10, 30) for k in (10, 30)]
    assert body_seeds(VOLUME, [(1, 2, 3)]) == [(1, 2, 3)]


def test_an_empty_image_has_a_seed_too():
    assert body_seeds(VOLUME) == [(6, 6, 6)]


def test_no_seed_lies_in_the_air_of_a_ct_whose_corners_hold_less_than_air():
    """-2000 beyond the round field of view, air, and a patient in the middle half."""
    array = np.full((32, 32, 32), -2000, np.int16)
    array[2:-2, 2:-2] = -1000
    array[14:-2, 14:-2] = 40
    array[20, 20, :8] = 1000
    seeds = body_seeds(Volume(array, np.eye(4), name="v", modality="CT"))
    assert seeds
    assert all(array[seed] == 40 for seed in seeds)
