import numpy as np

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.baselines.scikit_walker import ScikitWalker
from deepgrow3d_app.evaluation.metrics import dice
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.volume import Volume


def test_the_walker_fills_a_bright_ball_in_a_mirrored_volume():
    grid = np.stack(np.meshgrid(*(np.arange(24),) * 3, indexing="ij"), axis=-1)
    ball = np.linalg.norm(grid - (14, 11, 12), axis=-1) < 6
    noise = np.random.default_rng(0).normal(0, 10, ball.shape)
    array = (np.where(ball, 150, 0) + noise).astype(np.int16)
    array[0, 0, 0] = -1000
    volume = Volume(array, np.diag([-3.0, -3.0, 3.0, 1.0]))
    walker = ScikitWalker(spec=ModelSpec(channels=(1,), patch_shape=(24, 24, 24), spacing_mm=(3.0, 3.0, 3.0)))
    clicks = [Click((14, 11, 12)), Click((3, 3, 3), is_positive=False)]
    mask = walker.segment(volume, clicks, None)
    assert dice(mask, ball) > 0.9
    clicks.append(Click((14, 12, 12), is_positive=False))
    mask = walker.segment(volume, clicks, None)
    assert [bool(mask[click.index]) for click in clicks] == [True, False, False]
