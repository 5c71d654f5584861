import numpy as np

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.baselines.scikit_walker import ScikitWalker
from deepgrow3d_app.evaluation.metrics import dice
from deepgrow3d_app.volume.volume import Volume

SHAPE = (32, 32, 16)
OFFSETS_MM = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1) * (2.0, 2.0, 4.0)
BALL = np.linalg.norm(OFFSETS_MM - (36.0, 30.0, 28.0), axis=-1) < 16  # around the voxel (18, 15, 7)


def test_a_click_inside_and_one_outside_find_a_ball_in_a_mirrored_anisotropic_volume(mirrored):
    clicks = [Click((18, 15, 7)), Click((3, 3, 3), is_positive=False)]
    mask = ScikitWalker().segment(mirrored(BALL), clicks, None)
    assert mask.dtype == np.uint8
    assert dice(mask, BALL) > 0.9


def test_clicks_are_obeyed_side_by_side_and_in_an_image_without_contrast(mirrored):
    clicks = [Click((18, 15, 7)), Click((18, 16, 7), is_positive=False), Click((2, 2, 2))]
    flat = Volume(np.full(SHAPE, 40, dtype=np.int16), np.eye(4), modality="CT")
    for volume in (mirrored(BALL), flat):
        mask = ScikitWalker().segment(volume, clicks, None)
        assert [bool(mask[click.index]) for click in clicks] == [True, False, True]


def test_an_image_that_is_smaller_than_the_seeds_gives_an_answer():
    volume = Volume(np.full((1, 1, 1), 40, dtype=np.int16), np.eye(4), modality="CT")
    assert ScikitWalker().segment(volume, [Click((0, 0, 0))], None).all()
