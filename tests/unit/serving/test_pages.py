import hashlib
import json
from types import SimpleNamespace
from typing import Any

import pytest

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.retraining.job import JobState
from deepgrow3d_app.serving import status
from deepgrow3d_app.serving.click_queue import ClickQueue
from deepgrow3d_app.serving.file_version import file_version
from deepgrow3d_app.serving.metrics import Metrics
from deepgrow3d_app.serving.routes import pages


def test_without_built_pages_the_server_says_how_to_build_them(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "BUILT", tmp_path / "dist")
    answer = pages._page("index.html")
    assert b"make web" in answer.body
    with pytest.raises(NotFound, match="make web"):
        pages.part("start.js")


def test_only_parts_of_the_pages_are_sent(tmp_path, monkeypatch):
    (tmp_path / "dist").mkdir()
    (tmp_path / "secret.js").write_text("1")
    (tmp_path / "dist" / "start.js").write_text("2")
    monkeypatch.setattr(pages, "BUILT", tmp_path / "dist")
    assert pages.part("start.js").path == tmp_path / "dist" / "start.js"
    with pytest.raises(NotFound):
        pages.part("../secret.js")


@pytest.fixture
def evaluations(tmp_path, monkeypatch):
    """Scores of the checkpoint with the content ``weights``."""
    folder = tmp_path / "evaluation" / "ct"
    folder.mkdir(parents=True)
    digest = hashlib.sha256(b"weights").hexdigest()
    methods = [{"name": "network", "details": {"sha256": digest}}]
    (folder / "results.json").write_text(json.dumps({"setting": {"methods": methods}}))
    (folder / "summary.csv").write_text(
        "method,user,structure,dice_1,dice_5\n"
        "network,noisy,mean,0.1,0.2\nnetwork,perfect,spleen,0.3,0.4\nnetwork,perfect,mean,0.5,0.75\n"
    )
    monkeypatch.setattr(status, "EVALUATIONS", tmp_path / "evaluation")


def state(path, metrics, training=None):
    served: Any = SimpleNamespace(
        model=SimpleNamespace(path=path, loaded=SimpleNamespace(predictors=SimpleNamespace(devices=("cpu",)))),
        images=lambda: SimpleNamespace(status=lambda: {"total": 5, "completed": 2}),
        dicomweb=None,
        trainings=SimpleNamespace(latest=lambda: training),
    )
    return status.status_of(served, ClickQueue(1, 1), metrics)


def test_scores_are_shown_for_the_weights_that_were_scored(tmp_path, evaluations):
    checkpoint = tmp_path / "served.safetensors"
    checkpoint.write_bytes(b"weights")
    assert [(score.data, score.clicks) for score in state(checkpoint, Metrics()).model.scores] == [
        ("ct", {1: 0.5, 5: 0.75})
    ]
    assert file_version(checkpoint)
    checkpoint.write_bytes(b"other weights")
    assert state(checkpoint, Metrics()).model.scores == []


def test_a_training_is_shown_with_its_curve(tmp_path, evaluations):
    assert state(tmp_path / "none", Metrics()).training is None
    training = JobState(
        id="0001", started=0.0, step=6, total_steps=10, total_epochs=5, curve=[(0, 0.5), (6, 0.75)], message="Epoch 3"
    )
    shown = state(tmp_path / "none", Metrics(), training).training
    assert shown is not None
    assert (shown.is_running, shown.step, shown.total_steps) == (True, 6, 10)
    assert (shown.dice, shown.message) == ([(0, 0.5), (6, 0.75)], "Epoch 3")


def test_studies_and_clicks(tmp_path, evaluations):
    metrics = Metrics()
    before = state(tmp_path / "none", metrics)
    assert (before.studies.total, before.studies.done) == (5, 2)
    assert (before.clicks.answered, before.clicks.median_s) == (0, None)
    for total in (0.1, 0.9, 0.2):
        metrics.answered({"total": total, "queue": 0.1})
    after = state(tmp_path / "none", metrics)
    assert after.clicks.answered == 3
    assert after.clicks.median_s == pytest.approx(0.3)
