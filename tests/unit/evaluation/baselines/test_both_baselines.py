"""What every classical method owes its user."""

import numpy as np
import pytest

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.baselines.graph_cut import GraphCut
from deepgrow3d_app.evaluation.baselines.random_walker import RandomWalker
from deepgrow3d_app.volume.volume import Volume

SHAPE = (32, 32, 16)
OFFSETS_MM = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1) * (2.0, 2.0, 4.0)
BALL = np.linalg.norm(OFFSETS_MM - (36.0, 30.0, 28.0), axis=-1) < 16  # around the voxel (18, 15, 7)


def dice(mask, truth):
    return 2 * int((mask.astype(bool) & truth).sum()) / int(mask.sum() + truth.sum())


@pytest.fixture(params=[GraphCut, RandomWalker], ids=["graph cut", "random walker"])
def method(request):
    return request.param()


def test_one_click_finds_a_bright_ball_in_a_mirrored_anisotropic_volume(method, mirrored):
    mask = method.segment(mirrored(BALL), [Click((18, 15, 7))], None)
    assert mask.dtype == np.uint8
    assert dice(mask, BALL) > 0.9


def test_a_background_click_cuts_off_a_neighbour_that_is_connected(method, mirrored):
    """Two balls of 12 mm radius joined by a bridge of 3 x 3 voxels, all of one intensity."""
    left, right = (np.linalg.norm(OFFSETS_MM - (i, 30.0, 28.0), axis=-1) < 12 for i in (18.0, 46.0))
    bridge = np.zeros(SHAPE, dtype=bool)
    bridge[9:23, 14:17, 6:9] = True
    volume = mirrored(left | right | bridge)
    clicks = [Click((9, 15, 7)), Click((23, 15, 7), is_positive=False)]
    mask = method.segment(volume, clicks, None)
    assert mask[left].mean() > 0.9
    assert mask[right].mean() < 0.1


def test_all_clicks_are_obeyed_even_those_of_opposite_sign_side_by_side(method, mirrored):
    clicks = [
        Click((18, 15, 7)),
        Click((18, 16, 7), is_positive=False),
        Click((2, 2, 2)),
        Click((31, 31, 15), is_positive=False),
    ]
    mask = method.segment(mirrored(BALL), clicks, None)
    assert [bool(mask[click.index]) for click in clicks] == [True, False, True, False]


def test_a_constant_image_is_claimed_up_to_its_end(method):
    """Nothing holds the mask back before the air around the volume."""
    volume = Volume(np.full((9, 9, 9), 40, dtype=np.int16), np.eye(4), modality="CT")
    assert method.segment(volume, [Click((4, 4, 4))], None).all()


def test_a_constant_image_is_divided_half_way_between_two_clicks(method):
    volume = Volume(np.full((17, 9, 9), 40, dtype=np.int16), np.eye(4), modality="CT")
    mask = method.segment(volume, [Click((2, 4, 4)), Click((14, 4, 4), is_positive=False)], None)
    assert mask[:5, 4, 4].all()
    assert not mask[12:, 4, 4].any()


def test_a_structure_that_is_cut_by_the_corner_of_the_volume_is_found_from_that_corner(method, mirrored):
    corner = np.linalg.norm(OFFSETS_MM, axis=-1) < 30
    mask = method.segment(mirrored(corner), [Click((0, 0, 0))], None)
    assert mask[0, 0, 0] == 1
    assert dice(mask, corner) > 0.7


def test_an_image_of_one_slice_gives_an_answer(method, mirrored):
    disc = BALL[:, :, 7:8]
    mask = method.segment(mirrored(disc), [Click((18, 15, 0))], None)
    assert mask[18, 15, 0] == 1
    assert dice(mask, disc) > 0.6


def test_the_answer_does_not_depend_on_the_last_one_or_on_the_order_of_the_clicks(method, mirrored):
    clicks = [Click((18, 15, 7)), Click((3, 3, 3), is_positive=False), Click((20, 15, 7))]
    volume = mirrored(BALL)
    mask = method.segment(volume, clicks, None)
    np.testing.assert_array_equal(mask, method.segment(volume, clicks[::-1], 1 - mask))
