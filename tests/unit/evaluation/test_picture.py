import io
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.picture import draw_mask, draw_worst, mask_png, worst_trials
from deepgrow3d_app.evaluation.results import Round
from deepgrow3d_app.evaluation.summary import series_of
from deepgrow3d_app.volume.volume import Volume

BLUE_MARK = (64, 160, 255)
ORANGE_MARK = (255, 159, 10)
RED_LINE = (255, 59, 48)
GREEN_LINE = (52, 199, 89)
LEGEND_PIXELS = 40


def pixels(png, colour):
    """How many pixels of a picture have a colour, in its slices: the legend below shows all of them."""
    picture = matplotlib.image.imread(io.BytesIO(png))[:-LEGEND_PIXELS, :, :3]
    return int((np.abs(picture - np.array(colour) / 255).max(axis=2) < 0.12).sum())


@pytest.fixture
def volume():
    return Volume(np.zeros((60, 60, 40), dtype=np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))


@pytest.fixture
def box(volume):
    """A mask of 10 x 10 x 10 voxels around (25, 25, 15)."""
    mask = np.zeros(volume.shape, dtype=np.uint8)
    mask[20:30, 20:30, 10:20] = 1
    return mask


def test_the_outline_of_the_mask_is_drawn_in_red(volume, box, tmp_path):
    draw_mask(volume, np.zeros_like(box), [Click((25, 25, 15))], tmp_path / "empty.png")
    draw_mask(volume, box, [Click((25, 25, 15))], tmp_path / "box.png")
    assert pixels((tmp_path / "empty.png").read_bytes(), RED_LINE) == 0
    assert pixels((tmp_path / "box.png").read_bytes(), RED_LINE) > 500


def test_truth_is_green_and_clicks_have_the_colour_of_their_sign(volume, box):
    foreground, background = Click((25, 25, 15)), Click((25, 25, 16), is_positive=False)
    plain = mask_png(volume, np.zeros_like(box), [foreground])
    assert pixels(plain, BLUE_MARK) > 0
    assert pixels(plain, GREEN_LINE) == pixels(plain, ORANGE_MARK) == 0
    full = mask_png(volume, np.zeros_like(box), [foreground, background], truth=box)
    assert pixels(full, GREEN_LINE) > 500
    assert pixels(full, ORANGE_MARK) > 0


def test_the_slices_go_through_the_chosen_voxel(volume, box):
    seen = mask_png(volume, box, [Click((25, 25, 15))], through=(25, 25, 15))
    beside = mask_png(volume, box, [Click((25, 25, 15))], through=(50, 50, 30))
    assert pixels(seen, RED_LINE) > 500
    assert pixels(beside, RED_LINE) == 0


def test_a_small_structure_fills_much_of_the_picture(box):
    # The same box in a volume of 120 and of 600 mm: the field of view is that of the structure.
    small = Volume(np.zeros(box.shape, dtype=np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    large = Volume(np.zeros((300, 300, 200), dtype=np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    moved = np.zeros(large.shape, dtype=np.uint8)
    moved[100:110, 100:110, 100:110] = 1
    drawn = pixels(mask_png(small, box, [Click((25, 25, 15))]), RED_LINE)
    assert pixels(mask_png(large, moved, [Click((105, 105, 105))]), RED_LINE) == pytest.approx(drawn, rel=0.1)


def test_all_clicks_are_in_the_field_of_view(volume, box):
    near = pixels(mask_png(volume, box, [Click((25, 25, 15))]), RED_LINE)
    far = pixels(mask_png(volume, box, [Click((25, 25, 15)), Click((59, 59, 39), is_positive=False)]), RED_LINE)
    assert far < 0.8 * near  # it had to shrink, so that the corner is seen


def test_a_volume_of_one_voxel_and_a_name_with_dollars_are_drawn():
    volume = Volume(np.zeros((1, 1, 1), dtype=np.int16), np.eye(4))
    assert mask_png(volume, np.ones((1, 1, 1), dtype=np.uint8), [], title="$5 and $6").startswith(b"\x89PNG")


def test_a_falling_scale_of_grey_is_drawn(box):
    volume = Volume(np.arange(box.size, dtype=np.int16).reshape(box.shape), np.eye(4), slope=-1.0)
    assert mask_png(volume, box, []).startswith(b"\x89PNG")


def test_worst_trials_are_those_with_the_lowest_dice_after_the_last_click(make_trial, make_results):
    trials = [make_trial(dice, name) for name, dice in (("x", [0.1, 0.9]), ("y", [0.9, 0.3]), ("z", [0.5, 0.5]))]
    (series,) = series_of(make_results(trials))
    assert [trial.structure for trial in worst_trials(series, 2)] == ["y", "z"]
    assert len(worst_trials(series, 9)) == 3


def test_the_worst_picture_shows_the_largest_error(volume, box, make_trial):
    trial = make_trial([0.5, 0.6])
    elsewhere = np.zeros_like(box)
    elsewhere[40:55, 40:55, 25:38] = 1  # larger than the box, and invented
    picture = draw_worst(volume, box != 0, elsewhere, trial)
    assert picture.trial is trial
    assert pixels(picture.png, RED_LINE) > 500
    assert pixels(picture.png, GREEN_LINE) == 0  # the slices through it miss the truth


def test_a_perfect_answer_is_shown_through_the_middle_of_the_structure(volume, box, make_trial):
    done = make_trial([1.0]).rounds[0]
    trial = make_trial([1.0])
    trial = replace(trial, rounds=(done, Round(None, None, 1.0, 1.0, 0.0, 0.0)))
    picture = draw_worst(volume, box != 0, box, trial)
    assert pixels(picture.png, GREEN_LINE) > 500  # wider than the mask, it shows on both sides of it
