import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from deepgrow3d_app.serving.doubts import Doubts
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.dicom_series import Examination, write_dicom_series
from deepgrow3d_app.volume.files import write_mask
from deepgrow3d_app.volume.volume import Volume

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


class Images:
    """What is asked of a datastore: where an image is, and what is known of it."""

    def __init__(self, folder):
        self.folder = folder
        self.infos = {}
        self.uris = {}

    def get_image_uri(self, image):
        return self.uris.get(image, str(self.folder / f"{image}.nii.gz"))

    def get_image_info(self, image):
        return self.infos.get(image, {})

    def list_series(self, image, n_instances):
        """A DICOMweb server has it."""
        self.uris[image] = str(self.folder / image)
        self.infos[image] = {"instances": n_instances}

    def fetch_series(self, image, n_instances):
        """It is on this machine."""
        voxels = np.zeros((*SHAPE[:2], n_instances), np.int16)
        write_dicom_series(Volume(voxels, np.eye(4)), self.folder / image, Examination("ann", "Ann", "study", image))


@pytest.fixture
def images(tmp_path):
    for name in "ab":
        write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / f"{name}.nii.gz")
    return Images(tmp_path)


def doubts_of(model, images, tmp_path):
    return Doubts(tmp_path / "doubts", model, VolumeCache(1 << 20), lambda: images, lambda image: [(1, 1, 1)])


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


def test_a_series_is_scored_once_it_is_here_and_known_by_what_the_server_lists(images, tmp_path):
    model = Model()
    doubts = doubts_of(model, images, tmp_path)

    def scores():
        known = doubts.scores(["series"])
        doubts.wait(20)
        return known

    images.list_series("series", 8)
    assert (scores(), scores(), model.asked) == ({}, {}, 0)
    images.fetch_series("series", 8)
    assert (scores(), scores()) == ({}, {"series": 1.0})
    asked = model.asked
    shutil.rmtree(tmp_path / "series")  # to make room
    assert (scores(), model.asked) == ({"series": 1.0}, asked)
    images.list_series("series", 9)  # a slice came late
    images.fetch_series("series", 8)
    assert (scores(), scores(), model.asked) == ({}, {}, asked)


def test_what_was_removed_while_it_was_scored_is_scored_another_time(images, tmp_path, monkeypatch):
    model = Model()
    doubts = doubts_of(model, images, tmp_path)
    images.list_series("series", 8)
    images.fetch_series("series", 8)
    predict = model.predict

    def removed(volume, clicks):
        shutil.rmtree(tmp_path / "series", ignore_errors=True)
        return predict(volume, clicks)

    with monkeypatch.context() as patched:
        patched.setattr(model, "predict", removed)
        doubts.scores(["series"])
        doubts.wait(20)
    assert model.asked
    images.fetch_series("series", 8)
    assert doubts.scores(["series"]) == {}
    doubts.wait(20)
    assert doubts.scores(["series"]) == {"series": 1.0}


def test_nothing_is_scored_while_somebody_clicks(images, tmp_path):
    doubts = doubts_of(Model(), images, tmp_path)
    doubts.is_idle = lambda: False
    doubts.scores(["a"])
    doubts.wait(0.5)
    assert doubts.scores(["a"]) == {}
    doubts.is_idle = lambda: True
    doubts.wait(20)
    assert doubts.scores(["a"]) == {"a": 1.0}
