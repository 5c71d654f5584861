from types import SimpleNamespace

import numpy as np
import pytest

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.serving.doubts import Doubts
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import write_mask

SHAPE = (8, 8, 8)


class Model:
    """A network that draws the half of the volume that was clicked, until it becomes another one that draws all."""

    def __init__(self):
        self.name = "half"
        self.asked = 0

    def digest(self):
        return self.name

    @property
    def loaded(self):
        return SimpleNamespace(predictors=self)

    def predict(self, volume, clicks):
        self.asked += 1
        mask = np.ones(SHAPE, np.uint8)
        if self.name == "half":
            mask[:] = 0
            mask[self.asked % 2 * 4 :][:4] = 1
        return SimpleNamespace(boxed=BoxedMask.of(mask))


@pytest.fixture
def images(tmp_path):
    for name in "ab":
        write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / f"{name}.nii.gz")

    def find(image):
        if not (tmp_path / f"{image}.nii.gz").is_file():
            raise NotFound("gone")
        return tmp_path / f"{image}.nii.gz"

    return find


def doubts_of(model, images, tmp_path):
    return Doubts(tmp_path / "doubts", model, VolumeCache(1 << 20), images, lambda image: [(1, 1, 1)])


def test_images_are_scored_in_the_background_once_for_each_network(images, tmp_path):
    model = Model()
    doubts = doubts_of(model, images, tmp_path)
    assert doubts.scores(["a", "b"]) == {}
    doubts.wait(20)
    assert doubts.scores(["a", "b"]) == {"a": 1.0, "b": 1.0}
    asked = model.asked
    # Another server, or this one after a restart, knows them too.
    assert doubts_of(model, images, tmp_path).scores(["a", "b"]) == {"a": 1.0, "b": 1.0}
    assert model.asked == asked
    model.name = "all"
    assert doubts.scores(["a"]) == {}
    doubts.wait(20)
    assert doubts.scores(["a"]) == {"a": 0.0}


def test_an_image_that_was_replaced_is_scored_again_and_one_that_is_gone_is_not(images, tmp_path):
    doubts = doubts_of(Model(), images, tmp_path)
    doubts.scores(["a", "none"])
    doubts.wait(20)
    assert doubts.scores(["a", "none"]) == {"a": 1.0}
    write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), tmp_path / "a.nii.gz")
    assert doubts.scores(["a"]) == {}
    doubts.wait(20)
    assert doubts.scores(["a"]) == {"a": 1.0}


def test_nothing_is_scored_while_somebody_clicks(images, tmp_path):
    doubts = doubts_of(Model(), images, tmp_path)
    doubts.is_idle = lambda: False
    doubts.scores(["a"])
    doubts.wait(0.5)
    assert doubts.scores(["a"]) == {}
    doubts.is_idle = lambda: True
    doubts.wait(20)
    assert doubts.scores(["a"]) == {"a": 1.0}
