"""What a late click changes, on masks that can be drawn by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.model.late_correction import merged
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.boxed_mask import around_voxel
from deepgrow3d_app.volume.volume import Volume


def mask(text):
    """Rows of a slice, '#' inside; bool (rows, columns, 1)."""
    return np.array([[c == "#" for c in row] for row in text.split()])[..., None]


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
    after = merged(mask(BEFORE), mask(NOW), [around_voxel((1, 7, 0))], [])
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
    after = merged(mask(BEFORE), mask(NOW), [around_voxel((1, 5, 0))], [around_voxel((0, 6, 0))])
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
    after = merged(mask(BEFORE), mask(NOW), [around_voxel((2, 1, 0))], [])
    assert after[:2, 0].all(), "diagonal neighbours of the clicked voxel"
    np.testing.assert_array_equal(after[:, 4:], mask(BEFORE)[:, 4:])


def test_where_no_click_is_contradicted_the_answer_stands():
    np.testing.assert_array_equal(merged(mask(BEFORE), mask(NOW), [around_voxel((1, 5, 0))], []), mask(NOW))


@given(
    hnp.arrays(bool, (4, 5, 3)),
    hnp.arrays(bool, (4, 5, 3)),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=5, unique=True),
    st.integers(0, 5),
)
def test_every_voxel_is_as_before_or_as_now_and_clicks_get_what_they_asked_for(before, now, clicked, split):
    foreground, background = clicked[:split], clicked[split:]
    for index in clicked:
        now[index] = index in foreground
    after = merged(before, now, *([around_voxel(index) for index in some] for some in (foreground, background)))
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
