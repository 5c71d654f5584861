import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.cases import CasePool, load_group
from deepgrow3d_app.training.log import Progress
from deepgrow3d_app.training.patches import PatchSource
from deepgrow3d_app.training.plan import Budget, Recipe, TrainingPlan
from deepgrow3d_app.training.ranks import Ranks
from deepgrow3d_app.training.run import RunRequest, run_training
from deepgrow3d_app.training.run_folder import RunFolder


@pytest.fixture
def tiny_spec():
    return ModelSpec(channels=(4, 8, 8), patch_shape=(32, 32, 32), spacing_mm=(1.0, 1.0, 1.0))


@pytest.fixture
def tiny_plan(tiny_spec):
    """Patches of real cases only: a made-up one takes longer to make than to learn from."""
    return TrainingPlan(tiny_spec, Recipe(warmup_steps=1, synthetic_share=0.0))


@pytest.fixture
def case_folder(tmp_path):
    """One CT-like case stored as LPS: a box of 100 HU (value 3) and a speck of 5 voxels (value 4)."""
    array = np.full((24, 20, 16), -100, dtype=np.int16)
    labels = np.zeros(array.shape, dtype=np.uint8)
    labels[4:12, 5:15, 3:9] = 3
    labels[20, 10, 2:7] = 4
    array[labels == 3] = 100
    array[0, 0, 0] = -1000
    folder = tmp_path / "box"
    folder.mkdir()
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(array, affine), folder / "image.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / "labels.nii.gz")
    return folder


@pytest.fixture
def many_cases(case_folder, tmp_path):
    """A folder of four case folders: a, b, c and d, all alike."""
    for name in "abcd":
        shutil.copytree(case_folder, tmp_path / "many" / name)
    return tmp_path / "many"


@pytest.fixture
def group(case_folder, tiny_spec, tmp_path):
    return load_group(case_folder, tiny_spec, 0, tmp_path / "cache")


@pytest.fixture
def make_patches(group, tiny_plan):
    """``make_patches(seed=7)``: patches of the box, by the tiny plan with these changes to its recipe."""

    def make(**changes):
        recipe = dataclasses.replace(tiny_plan.recipe, **changes)
        return PatchSource(CasePool([group]), dataclasses.replace(tiny_plan, recipe=recipe))

    return make


ALONE = Ranks(0, 1, torch.device("cpu"))


class TrainingRun:
    """A run's folder, the cases it is trained on, and what it reports and tells."""

    class Killed(BaseException):
        """Nothing in the program sees it coming."""

    def __init__(self, path, plan, cases, held_out=0):
        self.folder = RunFolder(path)
        self.plan = plan
        self.cases = cases
        self.held_out = held_out
        self.reported: list[Progress] = []
        self.told: list[str] = []
        self.killed_at = -1
        self.is_stopped = lambda: False

    @property
    def files(self):
        """What every file holds, except the cases and the lock."""
        files = [path for path in self.folder.path.rglob("*") if path.is_file()]
        mine = [path for path in files if self.folder.cases not in path.parents and path.name != ".lock"]
        return {path: path.read_bytes() for path in mine}

    def train(self, steps, minutes=None, **changes):
        request = RunRequest([self.cases], self.held_out, command="by hand")
        request = dataclasses.replace(request, **changes)
        self.plan = dataclasses.replace(self.plan, budget=Budget(steps, minutes))
        return run_training(request, self.plan, self.folder, ALONE, self.report, self.told.append, self.is_stopped)

    def report(self, progress):
        self.reported.append(progress)
        if progress.step == self.killed_at:
            raise self.Killed

    def resume(self, steps, **changes):
        self.plan = self.folder.plan()
        return self.train(steps, resumes=True, **changes)

    @property
    def state(self):
        state = self.folder.read_state()
        assert state is not None
        return state

    @property
    def log(self):
        return [json.loads(line) for line in self.folder.log_file.read_text().splitlines()]

    @property
    def steps_of_log(self):
        return [line["step"] for line in self.log]


@pytest.fixture
def plan(tiny_plan):
    """A line in the log every other step, a save every third."""
    return dataclasses.replace(
        tiny_plan, recipe=dataclasses.replace(tiny_plan.recipe, validate_every=2, save_every=3, max_clicks=4)
    )


@pytest.fixture
def make_run(tmp_path, plan, case_folder):
    """``make_run("name")``: a run in that folder; on the box by the plan above where nothing else is said."""

    def make(name, plan=plan, cases=case_folder, held_out=0):
        return TrainingRun(tmp_path / name, plan, cases, held_out)

    return make


@pytest.fixture
def run(make_run):
    return make_run("run")
