"""A retraining of a tiny network on boxes: stopped, resumed, and with labels as other programs leave them."""

import json
import threading

import nibabel as nib
import numpy as np
import pytest
import torch

from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.retraining.job import JobFolder, JobSetup, JobState
from deepgrow3d_app.retraining.order import RetrainingOrder
from deepgrow3d_app.retraining.process import Retraining
from deepgrow3d_app.training import run

SPEC = ModelSpec(channels=(4, 8, 8), patch_shape=(32, 32, 32), spacing_mm=(1.0, 1.0, 1.0))
STEPS = 4


@pytest.fixture
def rows(tmp_path):
    """Four labelled cases, as a server lists them."""
    made = []
    for name in "abcd":
        labels = np.zeros((24, 20, 16), np.uint8)
        labels[4:12, 5:15, 3:9] = 3
        voxels = np.where(labels == 3, 100, -100).astype(np.int16)
        affine = np.diag([-2.0, -2.0, 2.0, 1.0])
        for kind, array in (("image", voxels), ("labels", labels)):
            nib.Nifti1Image(array, affine).to_filename(tmp_path / f"{name}-{kind}.nii.gz")
        files = {kind: str(tmp_path / f"{name}-{kind}.nii.gz") for kind in ("image", "labels")}
        made.append({"name": name, "patient": name, **files, "structures": {"box": 3}})
    return made


@pytest.fixture
def make_job(tmp_path, rows):
    """A job that is set up as the server does."""

    def make(name):
        job = JobFolder(tmp_path / "jobs" / name)
        job.path.mkdir(parents=True)
        torch.manual_seed(0)
        Checkpoint(SPEC, weights_of(build_network(SPEC)), {"command": "parent"}).save(job.parent_file)
        job.cases_file.write_text(json.dumps({"cases": rows}))
        order = RetrainingOrder(max_epochs=1, steps_per_epoch=STEPS, learning_rate=1e-2, force=True)
        setup = JobSetup(
            order=order,
            client="",
            prepared=tmp_path / "cases",
            replay=(),
            reference=None,
            reference_structures=(),
        )
        job.write_setup(setup)
        job.write_state(JobState(id=name, started=1, total_steps=STEPS, total_epochs=1))
        return job

    return make


def prepared(job):
    manifest = json.loads((job.setup().prepared / "manifest.json").read_text())
    return sorted(case["name"] for case in manifest["cases"])


def test_a_validation_that_was_cut_off_is_made_up_for(make_job, monkeypatch):
    """Else the candidate would be the network of the validation before: here, the one that it started from."""
    job = make_job("0001")
    stopped = threading.Event()
    validate = run._Run._validate

    def stopped_meanwhile(self):
        if self.trainer.step == STEPS:
            stopped.set()
        return validate(self)

    with monkeypatch.context() as patched:
        patched.setattr(run._Run, "_validate", stopped_meanwhile)
        Retraining(job, stopped.is_set).work()
    assert (job.state().stage, job.state().step) == ("training", STEPS)
    assert [step for step, _ in job.state().curve] == [0]
    Retraining(job, threading.Event().is_set).work()
    assert [step for step, _ in job.state().curve] == [0, STEPS]
    assert job.state().stage == "publishing"


def test_cases_that_are_held_out_otherwise_since_are_refused(make_job, rows, monkeypatch):
    """What was trained on would be what it is judged on."""
    job, other = make_job("0001"), make_job("0002")
    stopped = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(Retraining, "_judge", lambda self, parent, site: stopped.set())
        Retraining(job, stopped.is_set).work()
    held_out = [
        case["name"]
        for case in json.loads((job.setup().prepared / "manifest.json").read_text())["cases"]
        if case["split"] == "validation"
    ]
    assert len(held_out) == 1
    other.cases_file.write_text(json.dumps({"cases": [row for row in rows if row["name"] not in held_out]}))
    Retraining(other, threading.Event().is_set).work()
    with pytest.raises(TrainingError, match="trained on other cases"):
        Retraining(job, threading.Event().is_set).work()


def test_labels_without_names_are_learnt_from_beside_those_with_names(make_job, rows):
    for row in rows[:2]:
        row["structures"] = {}
    for row in rows[2:]:  # more names than a label map has values
        row["structures"] = {f"{row['name']} {value}": value for value in range(1, 200)}
    job = make_job("0001")
    Retraining(job, threading.Event().is_set)._prepare()
    assert prepared(job) == list("abcd")
