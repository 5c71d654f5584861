"""Pre-annotation while people work on the same images."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deepgrow3d_app.serving.batch.order import BatchOrder
from deepgrow3d_app.serving.batch.runs import BatchRuns
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.incoming import Incoming
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import read_mask, write_mask

SHAPE = (6, 7, 8)


def test_why_it_broke_off_is_told_where_even_that_cannot_be_written(tmp_path, monkeypatch):
    studies = tmp_path / "studies"
    studies.mkdir()
    write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), studies / "ct.nii.gz")
    volumes = VolumeCache(1 << 20)
    datastore = StudiesDatastore(studies, volumes, ClickLog(None), auto_reload=False)
    runs = BatchRuns(tmp_path / "batch", SimpleNamespace(), volumes, lambda: datastore, Incoming(None))  # type: ignore[arg-type]

    def outcome(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "_outcome", outcome)
    runs.start(BatchOrder.of({"prompts": {"ct": {"liver": {"foreground": [(1, 1, 1)]}}}}))
    runs.close()
    state = runs.latest()
    assert state is not None
    assert (state.status, state.error) == ("INTERRUPTED", "its state cannot be written (No space left on device)")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_label_that_somebody_saves_meanwhile_stays(tmp_path, overwrite):
    studies = tmp_path / "studies"
    studies.mkdir()
    write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), studies / "ct.nii.gz")
    write_mask(np.full(SHAPE, 2, np.uint8), np.eye(4), tmp_path / "annas.nii.gz")
    volumes = VolumeCache(1 << 20)
    datastore = StudiesDatastore(studies, volumes, ClickLog(None), auto_reload=False)

    class Drawing:
        """Takes so long that anna is done before it."""

        def predict(self, volume, clicks):
            datastore.save_label("ct", str(tmp_path / "annas.nii.gz"), "final", {"client_id": "anna"})
            return SimpleNamespace(boxed=BoxedMask.of(np.ones(SHAPE, np.uint8)))

    model: Any = SimpleNamespace(current=lambda: SimpleNamespace(predictors=Drawing()))
    runs = BatchRuns(tmp_path / "batch", model, volumes, lambda: datastore, Incoming(tmp_path / "incoming"))
    prompts = {"ct": {"liver": {"foreground": [(1, 1, 1)]}}}
    outcome = runs._outcome("ct", BatchOrder.of({"prompts": prompts, "label_tag": "final", "overwrite": overwrite}))
    assert outcome is not None
    assert outcome.status == "skipped"
    assert "somebody saved a label meanwhile" in (outcome.error or "")
    assert set(np.unique(read_mask(datastore.label_file("ct", "final"))[0])) == {2}


def test_a_label_waits_where_a_kill_leaves_nothing_for_good(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), studies / "ct.nii.gz")
    volumes = VolumeCache(1 << 20)
    waited = []

    class Datastore(StudiesDatastore):
        def save_label(self, image_id, label_filename, label_tag, label_info):
            waited.append(Path(label_filename))
            return super().save_label(image_id, label_filename, label_tag, label_info)

    datastore = Datastore(studies, volumes, ClickLog(None), auto_reload=False)
    drawing = SimpleNamespace(predict=lambda *_: SimpleNamespace(boxed=BoxedMask.of(np.ones(SHAPE, np.uint8))))
    model: Any = SimpleNamespace(current=lambda: SimpleNamespace(predictors=drawing))
    runs = BatchRuns(tmp_path / "batch", model, volumes, lambda: datastore, Incoming(tmp_path / "incoming"))
    outcome = runs._outcome("ct", BatchOrder.of({"prompts": {"ct": {"liver": {"foreground": [(1, 1, 1)]}}}}))
    assert outcome is not None
    assert outcome.status == "done"
    assert [path.parents[1] for path in waited] == [tmp_path / "incoming"]
    assert list((tmp_path / "incoming").iterdir()) == []
