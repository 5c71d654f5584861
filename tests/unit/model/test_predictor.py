"""What holds for every network: engines here are simple rules, so that masks can be reasoned about."""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import max_pool3d

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import ClickOutsideVolume, LabelMismatch
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.geometry import AxisOrder
from deepgrow3d_app.volume.volume import Volume

SPEC = ModelSpec(patch_shape=(16, 16, 16), spacing_mm=(2.0, 2.0, 2.0))
ALL_ORDERS = [
    AxisOrder((axes[0], axes[1], axes[2]), flips)
    for axes in itertools.permutations((0, 1, 2), 3)
    for flips in itertools.product((False, True), (False, True), (False, True))
]


@dataclass
class Rule:
    """An engine that answers with a formula of its inputs, and counts."""

    answer: Callable[[Tensor], Tensor]
    seen: list[Tensor] = field(default_factory=list)
    device: str = "rule"
    input_device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __call__(self, inputs):
        self.seen.append(inputs)
        return self.answer(inputs)


def bright(inputs):
    return inputs[0]


def nowhere(inputs):
    return torch.full(inputs.shape[1:], -5.0)


def everywhere(inputs):
    return torch.full(inputs.shape[1:], 5.0)


def unsure_at_borders(inputs):
    """Inside for certain, outside for certain, and within two voxels of a border rather inside."""
    image = inputs[:1]
    outermost, innermost = max_pool3d(image, 5, 1, 2), -max_pool3d(-image, 5, 1, 2)
    return torch.where(innermost > 0, 4.0, torch.where(outermost < 0, -4.0, 0.5))[0]


def phantom(shape=(24, 20, 12), spacing_mm=(1.5, 2.0, 3.0), radius_mm=9.0):
    """A bright ball (100 HU) in fat (-100 HU), with one voxel of air, in RAS order."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    centre = np.array(shape) // 2
    inside = np.linalg.norm((grid - centre) * spacing_mm, axis=-1) < radius_mm
    array = np.where(inside, 200, -100).astype(np.int16)
    array[0, 0, 0] = -1000
    return Volume(array, np.diag([*spacing_mm, 1.0])), inside, tuple(int(c) for c in centre)


def reordered(volume, order):
    """The same image stored in another axis order."""
    return Volume(np.ascontiguousarray(order.apply(volume.array)), order.apply_to_affine(volume.affine, volume.shape))


def test_the_ball_is_found_on_the_stored_grid():
    volume, inside, centre = phantom()
    mask = Predictor(SPEC, Rule(bright)).predict(volume, [Click(centre)]).mask
    assert mask.shape == volume.shape
    assert mask.dtype == np.uint8
    found = mask > 0
    assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.9


def test_where_the_network_is_unsure_the_image_decides():
    """By itself, the rule draws a ball of two patch voxels more: a Dice of 0.81."""
    spec = dataclasses.replace(SPEC, patch_shape=(48, 48, 48), spacing_mm=(1.0, 1.0, 1.0))
    volume, inside, centre = phantom()
    mask = Predictor(spec, Rule(unsure_at_borders)).predict(volume, [Click(centre)]).mask > 0
    assert 2 * (mask & inside).sum() / (mask.sum() + inside.sum()) > 0.9


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_the_answer_does_not_depend_on_how_the_axes_are_stored(order):
    volume, _, centre = phantom()
    clicks = [Click(centre), Click((centre[0], centre[1], centre[2] - 5), is_positive=False)]
    turned = [Click(order.apply_to_index(click.index, volume.shape), click.is_positive) for click in clicks]
    predictor = Predictor(SPEC, Rule(bright))
    expected = order.apply(predictor.predict(volume, clicks).mask)
    np.testing.assert_array_equal(predictor.predict(reordered(volume, order), turned).mask, expected)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_click_is_obeyed_whatever_the_network_says(data):
    shape = data.draw(st.tuples(*[st.integers(2, 30)] * 3))
    spacing_mm = data.draw(st.tuples(*[st.sampled_from([0.5, 1.0, 2.5, 7.0])] * 3))
    order = data.draw(st.sampled_from(ALL_ORDERS))
    volume = reordered(Volume(np.zeros(shape, dtype=np.int16), np.diag([*spacing_mm, 1.0])), order)
    indices = data.draw(
        st.lists(st.tuples(*[st.integers(0, n - 1) for n in volume.shape]), min_size=1, max_size=6, unique=True)
    )
    signs = [True, *data.draw(st.lists(st.booleans(), min_size=len(indices) - 1, max_size=len(indices) - 1))]
    clicks = [Click(index, sign) for index, sign in zip(indices, signs, strict=True)]
    rule = data.draw(st.sampled_from([nowhere, everywhere, bright]))
    previous = np.zeros(volume.shape, dtype=np.uint8)
    previous[indices[-1]] = 1
    mask = Predictor(SPEC, Rule(rule)).predict(volume, clicks, data.draw(st.sampled_from([None, previous]))).mask
    assert mask.shape == volume.shape
    assert all(mask[click.index] == click.is_positive for click in clicks)


def test_an_oblique_volume_is_answered_on_its_own_grid():
    volume, inside, centre = phantom()
    turn = np.deg2rad(25)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    oblique = Volume(volume.array, rotation @ volume.affine)
    mask = Predictor(SPEC, Rule(bright)).predict(oblique, [Click(centre)]).mask > 0
    assert 2 * (mask & inside).sum() / (mask.sum() + inside.sum()) > 0.9


def test_the_region_grows_until_the_mask_no_longer_touches_its_border():
    volume, inside, centre = phantom(shape=(60, 60, 60), spacing_mm=(2.0, 2.0, 2.0), radius_mm=45.0)
    rule = Rule(bright)
    prediction = Predictor(SPEC, rule).predict(volume, [Click(centre)])
    assert prediction.passes == len(rule.seen) > 1
    assert prediction.region.zoom > 1
    found = prediction.mask > 0
    assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.9


def test_a_small_structure_is_looked_at_closely():
    volume, _, centre = phantom(shape=(60, 60, 60), spacing_mm=(1.0, 1.0, 1.0), radius_mm=4.0)
    assert Predictor(SPEC, Rule(bright)).predict(volume, [Click(centre)]).region.zoom < 0.6


def test_a_second_look_corrects_what_the_first_one_found():
    """From near, with the click alone, a network draws too little of a structure that it sees whole."""
    volume, inside, centre = phantom((60, 60, 60), (1.0, 1.0, 1.0), 3.0)
    engine = Rule(bright)
    prediction = Predictor(SPEC, engine).predict(volume, [Click(centre)])
    assert prediction.passes == len(engine.seen) == 2
    first, second = (inputs[3] for inputs in engine.seen)
    assert not first.any()
    assert float(second[engine.seen[1][0] > 0].mean()) > 0.8
    assert prediction.mask[inside].all()


def test_a_second_look_that_hardly_magnifies_begins_anew():
    """Voxels of 3 mm are seen in 1.5 mm at the least, where a first look sees them in 2 mm."""
    volume, inside, centre = phantom((24, 24, 24), (3.0, 3.0, 3.0), 3.5)
    engine = Rule(bright)
    prediction = Predictor(SPEC, engine).predict(volume, [Click(centre)])
    assert prediction.passes == 2
    assert prediction.region.zoom == 0.75
    assert not any(inputs[3].any() for inputs in engine.seen)
    assert prediction.mask[inside].all()


def test_the_previous_mask_is_the_fourth_input_and_sizes_the_region():
    volume, inside, centre = phantom(shape=(60, 60, 60), spacing_mm=(2.0, 2.0, 2.0), radius_mm=45.0)
    rule = Rule(bright)
    Predictor(SPEC, rule).predict(volume, [Click(centre)], inside.astype(np.uint8))
    assert len(rule.seen) == 1
    assert 0.1 < float(rule.seen[0][3].mean()) < 0.9
    Predictor(SPEC, rule).predict(volume, [Click(centre)])
    assert not rule.seen[1][3].any(), "a cold start knows nothing at its first look"


def test_a_background_click_far_away_changes_nothing_but_its_voxel():
    """A leak was taken back there. Drawn at the patch's border, the click would mean the tissue there."""
    volume, _, centre = phantom((24, 20, 90))
    engine = Rule(bright)
    predictor = Predictor(SPEC, engine)
    clicks = [Click(centre), Click((centre[0], centre[1], centre[2] + 2)), Click((centre[0] - 9, centre[1], centre[2]))]
    clicks[2] = Click(clicks[2].index, is_positive=False)
    before = predictor.predict(volume, clicks[:2]).mask
    near = predictor.predict(volume, clicks, before)
    far = predictor.predict(volume, [*clicks, Click((centre[0], centre[1], 89), is_positive=False)], before)
    assert far.region.roi == near.region.roi
    assert torch.equal(engine.seen[-1], engine.seen[-1 - far.passes])
    np.testing.assert_array_equal(far.mask, near.mask)


def test_bad_clicks_and_masks_are_refused():
    volume, _, centre = phantom()
    predictor = Predictor(SPEC, Rule(bright))
    with pytest.raises(ClickOutsideVolume):
        predictor.predict(volume, [Click((0, 0, 12))])
    with pytest.raises(LabelMismatch, match=r"\(2, 2, 2\)"):
        predictor.predict(volume, [Click(centre)], np.zeros((2, 2, 2), dtype=np.uint8))


def test_an_answer_that_keeps_growing_is_restored_from_the_region_it_was_computed_in():
    """The last pass is the last word, even where its mask still touches the border of its region."""
    volume = Volume(np.zeros((200, 200, 200), dtype=np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    rule = Rule(everywhere)
    prediction = Predictor(SPEC, rule).predict(volume, [Click((100, 100, 100))])
    assert prediction.passes == len(rule.seen)
    covered = np.zeros(volume.shape, dtype=np.uint8)
    covered[prediction.region.roi.source_box] = 1
    np.testing.assert_array_equal(prediction.mask, covered)


def test_what_lies_beyond_the_largest_region_is_kept_from_the_previous_mask():
    spec = dataclasses.replace(SPEC, max_zoom=1.0)
    volume = Volume(np.zeros((100, 8, 8), dtype=np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    previous = np.zeros(volume.shape, dtype=np.uint8)
    previous[10:90, 2:6, 2:6] = 255
    rule = Rule(lambda inputs: inputs[3] - 0.5)
    mask = Predictor(spec, rule).predict(volume, [Click((50, 4, 4))], previous).mask
    np.testing.assert_array_equal(mask, previous > 0)
    assert rule.seen[0][3].max() == 1
