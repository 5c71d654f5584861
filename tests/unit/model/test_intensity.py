import numpy as np
import torch

from deepgrow3d_app.model.intensity import IntensityWindow
from deepgrow3d_app.volume.volume import Volume


def volume(values, slope=1.0, intercept=0.0):
    array = np.resize(np.array(values, dtype=np.int16), (4, 4, 4))
    return Volume(array, np.eye(4), slope, intercept)


def test_a_ct_window_is_given_in_hounsfield_units_whatever_the_rescaling():
    stored = volume([0, 1024, 2048], slope=1.0, intercept=-1024.0)
    window = IntensityWindow.of(stored, (-160.0, 240.0), compress_tails=True)
    assert window.normalise(torch.tensor([864.0, 1064.0, 1264.0])).tolist() == [-1, 0, 1]


def test_without_compression_the_classic_formula_holds():
    window = IntensityWindow.of(volume([-1000, 500]), (208.0 - 388.0, 208.0 + 388.0), compress_tails=False)
    hu = torch.tensor([-1000.0, 0.0, 208.0, 900.0])
    torch.testing.assert_close(window.normalise(hu), (hu - 208) / 388)


def test_compression_keeps_the_order_and_the_window():
    window = IntensityWindow(-160.0, 240.0)
    hu = torch.arange(-1024.0, 3000.0, 8.0)
    normalised = window.normalise(hu)
    assert (normalised.diff() > 0).all()
    assert normalised.abs().max() < 4


def test_an_mr_uses_its_own_range():
    values = np.arange(64)
    window = IntensityWindow.of(volume(values), (-160.0, 240.0), compress_tails=True)
    assert 0 <= window.low < 2
    assert 61 < window.high <= 63


def test_a_constant_volume_does_not_divide_by_zero():
    window = IntensityWindow.of(volume([7]), (-160.0, 240.0), compress_tails=True)
    assert torch.isfinite(window.normalise(torch.tensor([7.0]))).all()


def test_a_negative_slope_does_not_invert_an_mr():
    bright = torch.tensor([60.0])
    upright = IntensityWindow.of(volume(np.arange(64)), (-160.0, 240.0), compress_tails=True)
    mirrored = IntensityWindow.of(volume(-np.arange(64), slope=-1.0), (-160.0, 240.0), compress_tails=True)
    torch.testing.assert_close(mirrored.normalise(-bright), upright.normalise(bright))
    assert mirrored.normalise(torch.tensor([mirrored.darkest])) < -1
