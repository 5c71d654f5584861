import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.model.suggestion import least_sure
from deepgrow3d_app.volume.volume import Volume

SHAPE = (16, 16, 16)
SAME = Roi((-0.5, -0.5, -0.5), (1.0, 1.0, 1.0), SHAPE, SHAPE)


def half(certain=9.0):
    """Inside below i = 8, certain everywhere."""
    logits = torch.full(SHAPE, -certain)
    logits[:8] = certain
    return logits


@pytest.mark.parametrize("certain", [9.0, -9.0])
def test_without_a_border_nothing_is_suggested(certain):
    assert least_sure(torch.full(SHAPE, certain), SAME) is None


@given(j=st.integers(0, 15), k=st.integers(0, 15), i=st.sampled_from([7, 8]))
def test_the_doubtful_voxel_at_the_border_is_found(i, j, k):
    logits = half()
    logits[i, j, k] = 0.01 if i < 8 else -0.01
    suggestion = least_sure(logits, SAME)
    assert suggestion is not None
    assert suggestion.index == (i, j, k)
    assert suggestion.is_inside == (i < 8)
    assert suggestion.doubt == pytest.approx(1, abs=0.01)


def test_doubt_far_from_the_border_is_passed_over():
    logits = half()
    logits[15, 3, 3] = 0.0
    logits[7, 12, 12] = 2.0
    suggestion = least_sure(logits, SAME)
    assert suggestion is not None
    assert suggestion.index == (7, 12, 12)


def test_only_voxels_of_the_volume_are_suggested():
    wide = Roi((-4.5, -4.5, -4.5), (1.0, 1.0, 1.0), SHAPE, (8, 8, 8))
    logits = half()
    logits[7, 0, 0] = 0.0  # beyond it
    logits[7, 8, 8] = 1.0
    suggestion = least_sure(logits, wide)
    assert suggestion is not None
    assert suggestion.index == (3, 4, 4)


class Always:
    """An engine that gives one answer."""

    device = "rule"
    input_device = torch.device("cpu")

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, inputs):
        return self.logits.clone()


class DoubtAt:
    """An engine that is sure of a half, but for a voxel of the patch."""

    device = "rule"
    input_device = torch.device("cpu")

    def __call__(self, inputs):
        logits = half()
        logits[6, 5, 10] = 0.1
        return logits


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_the_suggestion_is_on_the_stored_grid(flips):
    spec = ModelSpec(patch_shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0), min_zoom=1.0, max_zoom=1.0)
    array = np.zeros(SHAPE, np.int16)
    volume = Volume(array, np.diag([*map(float, flips), 1.0]), name="v")
    prediction = Predictor(spec, DoubtAt()).predict(volume, [Click((12, 12, 2))])
    assert prediction.suggestion is not None
    wanted = tuple(place if flip == 1 else 15 - place for place, flip in zip((6, 5, 10), flips, strict=True))
    assert prediction.suggestion.index == wanted
    assert prediction.suggestion.is_inside == bool(prediction.mask[wanted])


def test_a_suggestion_says_on_which_side_of_the_returned_mask_it_lies():
    """With thick slices, the mask of a stored voxel is not the sign of one patch voxel."""
    spec = ModelSpec(patch_shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0), min_zoom=1.0, max_zoom=1.0)
    for edge_mm, place in itertools.product((3.0, 5.0), range(6, 10)):
        logits = torch.full(SHAPE, -3.0)
        logits[:, :, place:] = 3.0
        logits[6, 5, place - 1] = 0.1
        volume = Volume(np.zeros((16, 16, 4), np.int16), np.diag([1.0, 1.0, edge_mm, 1.0]), name="v")
        prediction = Predictor(spec, Always(logits)).predict(volume, [Click((12, 12, 3))])
        assert prediction.suggestion is not None
        assert prediction.suggestion.is_inside == bool(prediction.mask[prediction.suggestion.index])


def test_no_clicked_slice_is_suggested_however_thick():
    roi = Roi((-0.5, -0.5, -0.5), (1.0, 1.0, 0.1), SHAPE, (16, 16, 2))
    logits = torch.full(SHAPE, 9.0)
    logits[:8] = -9.0
    logits[7, 4, 8] = 0.0  # four patch voxels from the click, in the same stored voxel
    clicked = (7, 4, 0)
    suggestion = least_sure(logits, roi, [roi.to_patch(clicked)])
    assert suggestion is None or suggestion.index != clicked


def test_nothing_is_suggested_beside_a_click():
    logits = half()
    logits[7, 4, 4] = 0.0
    logits[7, 12, 12] = 2.0
    suggestion = least_sure(logits, SAME, [(8.2, 5.0, 5.9)])
    assert suggestion is not None
    assert suggestion.index == (7, 12, 12)
