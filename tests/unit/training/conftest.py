import dataclasses
import shutil

import nibabel as nib
import numpy as np
import pytest

from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.cases import CasePool, load_group
from deepgrow3d_app.training.patches import PatchSource
from deepgrow3d_app.training.plan import Recipe, TrainingPlan


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
