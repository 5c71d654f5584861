"""Several annotators who ask for the next image at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.routes.activelearning import next_sample
from deepgrow3d_app.serving.strategies import RandomStrategy, UncertainStrategy
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import write_mask

NAMES = ("a", "b", "c", "d")


class Known:
    """Scores that are known already; to look them up takes so long that everybody who may looks at once."""

    def scores(self, images):
        threading.Event().wait(0.1)
        return dict.fromkeys(images, 0.5)


@pytest.fixture
def images(tmp_path):
    for name in NAMES:
        write_mask(np.zeros((4, 4, 4), np.uint8), np.eye(4), tmp_path / f"{name}.nii.gz")
    return StudiesDatastore(tmp_path, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)


@pytest.fixture
def served(images) -> Any:
    doubts: Any = Known()
    strategy = UncertainStrategy(doubts, RandomStrategy(np.random.default_rng(0)))
    volumes = SimpleNamespace(prefetch=lambda path: None)
    return SimpleNamespace(images=lambda: images, strategy=lambda name: strategy, volumes=volumes)


def test_those_who_ask_at_once_get_different_images(served, images):
    with ThreadPoolExecutor(len(NAMES)) as annotators:
        asking = [annotators.submit(next_sample, served, "uncertain", {"client_id": name}) for name in NAMES]
        handed_out = {name: one.result(30)["id"] for name, one in zip(NAMES, asking, strict=True)}
    assert sorted(handed_out.values()) == sorted(NAMES)
    for name, image in handed_out.items():
        assert images.get_image_info(image)["strategy"]["uncertain"]["client_id"] == name


def test_nobody_waits_while_the_image_of_somebody_else_is_fetched(served, images, monkeypatch):
    find = images.image_file
    fetching, is_second_done = threading.Event(), threading.Event()

    def fetched(image):
        if not fetching.is_set():
            fetching.set()
            assert is_second_done.wait(30)
        return find(image)

    monkeypatch.setattr(images, "image_file", fetched)
    with ThreadPoolExecutor(1) as annotators:
        first = annotators.submit(next_sample, served, "uncertain", {})
        assert fetching.wait(30)
        second = next_sample(served, "uncertain", {})
        is_second_done.set()
        assert first.result(30)["id"] != second["id"]
