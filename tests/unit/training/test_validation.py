"""Networks as methods that the protocol asks, one click after the other."""

import numpy as np
import pytest

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.network_method import NetworkMethod
from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.validation import _Network
from deepgrow3d_app.volume.volume import Volume

CLICKS = [Click((4, 4, 4)), Click((1, 1, 1), is_positive=False)]


@pytest.mark.parametrize("make", [NetworkMethod, lambda file: _Network(Predictor.from_checkpoint(file))])
def test_the_network_is_told_that_the_last_click_is_new(tmp_path, monkeypatch, make):
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16))
    file = tmp_path / "network.safetensors"
    Checkpoint(spec, weights_of(build_network(spec))).save(file)
    told = []
    predict = Predictor.predict

    def spied(self, volume, clicks, previous=None, latest=()):
        told.append(list(latest))
        return predict(self, volume, clicks, previous, latest)

    monkeypatch.setattr(Predictor, "predict", spied)
    method, mask = make(file), None
    for count in (1, 2):
        mask = method.segment(Volume(np.zeros((8, 8, 8), np.int16), np.eye(4)), CLICKS[:count], mask)
    assert told == [CLICKS[:1], CLICKS[1:]]
