import shutil

import nibabel as nib
import numpy as np
import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.layouts.prepared_folder import find_prepared_folder
from deepgrow3d_app.cases.prepare import prepare_cases
from deepgrow3d_app.errors import LabelMismatch, TrainingError
from deepgrow3d_app.training.cases import CasePool, load_group
from deepgrow3d_app.training.patches import PatchSource


def test_a_case_is_brought_to_ras_and_its_specks_are_left_out(case_folder, tiny_spec):
    (case,) = load_group(case_folder, tiny_spec, held_out=0)
    (structure,) = case.structures
    assert (structure.value, structure.voxels) == (3, 8 * 10 * 6)
    # i and j are mirrored: 24 - 12 and 20 - 15.
    assert (structure.low, structure.high) == ((12, 5, 3), (20, 15, 9))
    assert (case.labels[12:20, 5:15, 3:9] == 3).all()
    assert (case.image[case.labels == 3] == 100).all()


def test_a_label_on_another_grid_is_refused(case_folder, tiny_spec):
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), case_folder / "labels.nii.gz")
    with pytest.raises(LabelMismatch, match=r"box/labels.nii.gz' has 4 x 4 x 4 voxels, its image .* 24 x 20 x 16"):
        load_group(case_folder, tiny_spec, held_out=0)


def test_a_label_of_the_same_shape_elsewhere_is_refused(case_folder, tiny_spec):
    nib.save(nib.Nifti1Image(np.ones((24, 20, 16), np.uint8), np.eye(4)), case_folder / "labels.nii.gz")
    with pytest.raises(LabelMismatch, match=r"labels.nii.gz' lies up to .* voxels from its image 'image.nii.gz'"):
        load_group(case_folder, tiny_spec, held_out=0)


def test_the_last_cases_of_a_data_set_are_held_out(case_folder, tiny_spec):
    for kind, file in (("images", "image.nii.gz"), ("labels", "labels.nii.gz")):
        (case_folder / kind).mkdir()
        for name in ("a", "b", "c"):
            (case_folder / kind / f"{name}.nii.gz").write_bytes((case_folder / file).read_bytes())
        (case_folder / file).unlink()
    assert len(load_group(case_folder, tiny_spec, held_out=2)) == 1
    with pytest.raises(TrainingError, match=r"it has 3 cases, and the last 3 are held out. Hold out at most 2"):
        load_group(case_folder, tiny_spec, held_out=3)


class TestPreparedFolder:
    @pytest.fixture
    def prepared(self, case_folder):
        for name in ("two", "three", "four"):
            shutil.copytree(case_folder, case_folder.with_name(name))
        prepare_cases(find_cases(case_folder.parent), case_folder.parent / "prepared", (2.0, 2.0, 3.0))
        return case_folder.parent / "prepared"

    def test_its_own_split_is_kept_and_voxels_stay_on_disk(self, prepared, tiny_spec):
        cases = load_group(prepared, tiny_spec, held_out=40)
        assert len(cases) == len(find_prepared_folder(prepared, "training") or ())
        # The map is read-only, a copy would not be.
        assert not any(array.flags.writeable for case in cases for array in (case.image, case.labels))
        assert cases[0].spacing_mm == (2.0, 2.0, 3.0)

    def test_patches_are_drawn_from_it(self, prepared, tiny_spec):
        pool = CasePool([load_group(prepared, tiny_spec, held_out=0)])
        patches = PatchSource(pool, tiny_spec, synthetic_share=0.5, generator=np.random.default_rng(0))
        assert all(patches.draw().truth.any() for _ in range(8))


def test_draws_follow_the_shares(case_folder, tiny_spec):
    (case,) = load_group(case_folder, tiny_spec, held_out=0)
    pool = CasePool([[case], [case]])
    assert pool.shares == pytest.approx([0.5, 0.5])
    assert pool.draw(np.random.default_rng(0)) is case
    with pytest.raises(TrainingError, match="at least one"):
        CasePool([])
