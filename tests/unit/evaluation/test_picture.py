import matplotlib.image
import numpy as np

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.picture import draw_mask
from deepgrow3d_app.volume.volume import Volume


def red_pixels(file):
    picture = matplotlib.image.imread(file)
    return int(((picture[..., 0] > 0.8) & (picture[..., 1] < 0.4) & (picture[..., 2] < 0.4)).sum())


def test_the_outline_of_the_mask_is_drawn_in_red(tmp_path):
    volume = Volume(np.zeros((20, 16, 12), dtype=np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
    mask = np.zeros(volume.shape, dtype=np.uint8)
    draw_mask(volume, mask, [Click((10, 8, 6))], tmp_path / "empty.png")
    mask[5:15, 4:12, 3:9] = 1
    draw_mask(volume, mask, [Click((10, 8, 6))], tmp_path / "box.png")
    assert red_pixels(tmp_path / "empty.png") == 0
    assert red_pixels(tmp_path / "box.png") > 500
