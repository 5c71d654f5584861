"""What a correcting click changes, on masks that can be drawn by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.model.correction import LATE_CLICKS, corrected
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.boxed_mask import around_voxel
from deepgrow3d_app.volume.volume import Volume

SPACING_MM = (4.0, 6.0, 5.0)


def mask(text):
    """Rows of a slice, '#' inside; bool (rows, columns, 1)."""
    return np.array([[c == "#" for c in row] for row in text.split()])[..., None]


def late(before, now, foreground, background, latest=None):
    """``corrected``, after so many clicks that were obeyed already that the latest one is late."""
    inside = [tuple(index) for index in np.argwhere(before) if tuple(index) not in background][:1]
    obeyed = inside * (LATE_CLICKS - len(foreground) - len(background))
    return early(before, now, [*obeyed, *foreground], background, latest)


def early(before, now, foreground, background, latest=None):
    """``corrected``, with voxels instead of boxes; late where there are so many of them."""
    missed, exceeded = ([around_voxel(index) for index in some] for some in (foreground, background))
    return corrected(before, now, missed, exceeded, [] if latest is None else [around_voxel(latest)], SPACING_MM)


BEFORE = """
    ....###.
    ....###.
    ....###.
"""
NOW = """
    #...##..
    #...####
    ....####
"""


def test_a_foreground_click_adds_what_hangs_together_with_it():
    after = late(mask(BEFORE), mask(NOW), [(1, 7, 0)], [])
    np.testing.assert_array_equal(
        after,
        mask(
            """
            ....###.
            ....####
            ....####
            """
        ),
    )


def test_a_background_click_removes_what_hangs_together_with_it():
    after = late(mask(BEFORE), mask(NOW), [(1, 5, 0)], [(0, 6, 0)])
    np.testing.assert_array_equal(
        after,
        mask(
            """
            ....##..
            ....###.
            ....###.
            """
        ),
    )


def test_a_change_beside_the_click_counts_too():
    after = late(mask(BEFORE), mask(NOW), [(2, 1, 0)], [])
    assert after[:2, 0].all(), "diagonal neighbours of the clicked voxel"
    np.testing.assert_array_equal(after[:, 4:], mask(BEFORE)[:, 4:])


def test_where_no_click_is_contradicted_and_none_is_known_to_be_new_the_answer_stands():
    for rule in (early, late):
        np.testing.assert_array_equal(rule(mask(BEFORE), mask(NOW), [(1, 5, 0)], []), mask(NOW))


@pytest.mark.parametrize(("asked", "kept"), [(1, True), (2, True), (3, False)])
def test_an_early_foreground_click_takes_away_no_part_much_larger_than_what_it_adds(asked, kept):
    """The block on the left has 7 voxels: more than three times two, and less than three times three."""
    before, now = (np.zeros((5, 9, 1), bool) for _ in range(2))
    before[:, :1] = before[:2, 1:2] = True
    before[4, 3] = True  # a part of one voxel
    now[0, 5 : 5 + asked] = True
    now[3, 8] = True  # that is new too, and elsewhere
    after = early(before, now, [(0, 5, 0)], [])
    expected = now | (before & kept)
    expected[4, 3] = False
    np.testing.assert_array_equal(after, expected)


def test_an_early_background_click_adds_no_part_much_larger_than_what_it_takes_away():
    """As above, with inside and outside exchanged."""
    before, now = (np.ones((5, 9, 1), bool) for _ in range(2))
    before[:, :1] = before[:2, 1:2] = False
    before[4, 3] = False
    now[0, 5:7] = now[3, 8] = False
    expected = now & before
    expected[4, 3] = True
    np.testing.assert_array_equal(early(before, now, [(4, 5, 0)], [(0, 5, 0)]), expected)


def test_where_clicks_asked_for_both_an_early_answer_stands():
    asked = [(1, 7, 0)], [(0, 6, 0)]
    np.testing.assert_array_equal(early(mask(BEFORE), mask(NOW), *asked), mask(NOW))


def test_a_late_click_that_the_mask_agreed_with_gets_what_is_new_near_it():
    """12 mm are three rows or two columns."""
    before = np.zeros((9, 9, 1), bool)
    before[:, :4] = True
    now = before.copy()
    now[0, 4] = now[8, 4] = True  # near the click, and 5 rows away
    now[3, 7] = True  # 4 columns away
    now[3, 0] = False
    expected = before.copy()
    expected[0, 4] = True
    np.testing.assert_array_equal(late(before, now, [(3, 3, 0)], [], (3, 3, 0)), expected)


def test_a_late_background_click_outside_the_mask_takes_away_near_it():
    """The mirror image of the one before."""
    before = np.ones((9, 9, 1), bool)
    before[:, :4] = False
    now = before.copy()
    now[0, 4] = now[8, 4] = now[3, 7] = False
    now[3, 0] = True
    expected = before.copy()
    expected[0, 4] = False
    np.testing.assert_array_equal(late(before, now, [(8, 8, 0)], [(3, 3, 0)], (3, 3, 0)), expected)


def test_an_early_click_that_the_mask_agreed_with_takes_away_no_part_much_larger_than_what_it_adds_near_it():
    before = np.zeros((9, 9, 1), bool)
    before[:, :4] = True
    now = before.copy()
    now[0, 4] = now[8, 4] = now[3, 8] = True
    for gone, stays in ((3, False), (4, True)):
        now[5:9, 0] = True
        now[5 : 5 + gone, 0] = False
        expected = now.copy()
        expected[5 : 5 + gone, 0] = stays
        np.testing.assert_array_equal(early(before, now, [(3, 3, 0)], [], (3, 3, 0)), expected)


@given(
    hnp.arrays(bool, (4, 5, 3)),
    hnp.arrays(bool, (4, 5, 3)),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=8, unique=True),
    st.integers(0, 8),
    st.booleans(),
)
def test_every_voxel_is_as_before_or_as_now_and_clicks_get_what_they_asked_for(before, now, clicked, split, is_known):
    foreground, background = clicked[:split], clicked[split:]
    for index in clicked:
        now[index] = index in foreground
    after = early(before, now, foreground, background, clicked[-1] if is_known else None)
    assert ((after == before) | (after == now)).all()
    assert all(after[index] == now[index] for index in clicked)


class Brightness:
    """An engine that takes bright voxels for the structure."""

    device, input_device = "rule", torch.device("cpu")

    def __call__(self, inputs):
        return inputs[0]


@pytest.mark.parametrize("clicks", [5, 6])
def test_the_predictor_holds_to_it_from_the_sixth_click_on(clicks):
    array = np.full((32, 32, 32), -100, np.int16)
    array[4:12, 8:16, 8:16] = array[20:28, 8:16, 8:16] = 200
    previous = np.zeros(array.shape, np.uint8)
    previous[4:8, 8:16, 8:16] = 1
    inside = [Click((5, 10, k)) for k in range(9, 14)]
    made = [*inside[: clicks - 1], Click((10, 12, 12))]
    answer = Predictor(ModelSpec(), Brightness()).predict(Volume(array, np.eye(4)), made, previous).mask
    assert answer[8:12, 8:16, 8:16].mean() > 0.9, "what hangs together with the click is corrected"
    assert answer[24, 12, 12] == (clicks < 6), "of the other cube, nobody asked"


@pytest.mark.parametrize("latest", [None, (5, 10, 13)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_the_predictor_takes_over_what_is_new_near_the_latest_click_in_any_orientation(latest, signs):
    array = np.full((32, 32, 32), -100, np.int16)
    array[4:12, 8:16, 8:16] = array[20:28, 8:16, 8:16] = 200
    previous = np.zeros(array.shape, np.uint8)
    previous[4:8, 8:16, 8:16] = 1
    made = [Click((5, 10, k)) for k in range(8, 14)]
    volume = Volume(array, np.diag([3.0 * sign for sign in signs] + [1.0]))
    answer = (
        Predictor(ModelSpec(), Brightness()).predict(volume, made, previous, [Click(latest)] if latest else ()).mask
    )
    assert answer[8:12, 8:16, 8:16].mean() > 0.9, "12 mm are four voxels: the rest of the cube is near enough"
    assert answer[24, 12, 12] == (latest is None)


@pytest.mark.parametrize("grown", [1, 4])
def test_the_predictor_holds_to_it_from_the_second_click_on(grown):
    """The cube that goes has 8 slices, the one that grows 1 or 4 more: more than three times as many, or fewer."""
    array = np.full((32, 32, 32), -100, np.int16)
    array[4 : 8 + grown, 8:16, 8:16] = 200
    previous = np.zeros(array.shape, np.uint8)
    previous[4:8, 8:16, 8:16] = previous[20:28, 8:16, 8:16] = 1
    made = [Click((5, 10, 10)), Click((8, 12, 12))]
    answer = Predictor(ModelSpec(), Brightness()).predict(Volume(array, np.eye(4)), made, previous).mask
    assert answer[8 : 8 + grown, 9:15, 9:15].all()
    assert answer[21:27, 9:15, 9:15].mean() == (grown == 1)


def test_of_a_saved_label_and_one_click_that_is_the_new_one():
    array = np.full((32, 32, 32), -100, np.int16)
    array[4:8, 8:16, 8:16] = 200
    previous = np.zeros(array.shape, np.uint8)
    previous[4:8, 8:16, 8:16] = previous[20:28, 8:16, 8:16] = 1
    answer = Predictor(ModelSpec(), Brightness()).predict(Volume(array, np.eye(4)), [Click((5, 10, 10))], previous).mask
    np.testing.assert_array_equal(answer, previous)
