import numpy as np
import pytest

from deepgrow3d_app.evaluation.metrics import dice


def test_dice_by_hand():
    mask, truth = np.zeros((2, 8, 8, 8), dtype=np.uint8)
    mask[0:4, 0, 0] = 1
    truth[2:8, 0, 0] = 1
    assert dice(mask, truth) == pytest.approx(2 * 2 / (4 + 6))


def test_label_values_do_not_matter_and_empty_masks_agree():
    mask = np.zeros((3, 3, 3), dtype=np.uint8)
    assert dice(mask, mask) == 1
    mask[1, 1, 1] = 1
    assert dice(mask * 7, mask) == 1
    assert dice(mask, np.zeros_like(mask)) == 0


def test_masks_on_two_grids_are_not_compared():
    with pytest.raises(ValueError, match="one grid"):
        dice(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)))
