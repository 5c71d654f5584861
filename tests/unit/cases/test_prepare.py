from dataclasses import replace

import numpy as np

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.layouts.prepared_folder import find_prepared_folder
from deepgrow3d_app.cases.prepare import prepare_cases
from tests.unit.cases.conftest import files_of


class TestResult:
    def test_voxels_stay_as_they_are_without_a_spacing(self, pairs, output):
        report = prepare_cases(find_cases(pairs), output, None)
        assert (report.new, report.faults) == (4, ())
        for before, after in zip(find_cases(pairs), find_cases(output), strict=True):
            stored, prepared = before.load(), after.load()
            assert (after.name, after.patient) == (before.name, before.patient)
            assert np.array_equal(prepared.volume.array, stored.volume.array)
            assert np.array_equal(prepared.labels, stored.labels)
            assert np.array_equal(prepared.volume.affine, stored.volume.affine)
            assert prepared.structures == stored.structures

    def test_voxels_get_the_spacing_in_ras_order(self, tmp_path, write_pair, output):
        lps = np.diag((-2.0, -2.0, 2.0, 1.0))
        write_pair(tmp_path / "one" / "image.nii.gz", tmp_path / "one" / "labels.nii.gz", affine=lps)
        prepare_cases(find_cases(tmp_path / "one"), output, (1.0, 2.0, 4.0))
        case = find_cases(output)[0].load()
        assert case.volume.spacing_mm == (1.0, 2.0, 4.0)
        assert case.labels.shape == (16, 8, 4)
        # The block's i and j run from 1 to 4 of 8: mirrored, from 3 to 6, and i in halves.
        i, j, _ = np.nonzero(case.labels == 1)
        assert (i.min(), i.max(), j.min(), j.max()) == (6, 13, 3, 6)

    def test_arrays_are_mapped_and_not_read(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        case = find_cases(output)[0].load()
        for array in (case.volume.array, case.labels):
            assert isinstance(array.base, np.memmap)
            assert not array.flags.writeable

    def test_scale_and_modality_are_kept(self, pairs, output, write_nifti, block_labels):
        write_nifti(np.where(block_labels > 0, 50.0, -1000.5), pairs / "images" / "a.nii.gz")
        prepare_cases(find_cases(pairs), output, None)
        before, after = find_cases(pairs)[0].load().volume, find_cases(output)[0].load().volume
        assert (after.slope, after.intercept) == (before.slope, before.intercept) != (1.0, 0.0)
        assert (before.modality, after.modality, after.is_ct) == (None, "CT", True)

    def test_names_decide_where_numbers_disagree(self, pairs, case_folder, output):
        (case_folder / "structures.json").write_text('{"structures": {"plane": 1, "aorta": 3}}')
        report = prepare_cases([*find_cases(pairs), *find_cases(case_folder)], output, None)
        assert report.manifest.structures == {"aorta": 1, "block": 2, "plane": 3}
        one = next(case for case in find_cases(output) if case.name == "one").load()
        assert one.structures == {"aorta": 1, "plane": 3}
        assert one.truth("plane").sum() == 4 * 4 * 4

    def test_without_any_name_values_are_kept(self, pairs, output):
        (pairs / "structures.json").unlink()
        prepare_cases(find_cases(pairs), output, None)
        assert find_cases(output)[0].load().structures == {"label 1": 1, "label 3": 3}

    def test_progress_is_told_after_each_case(self, pairs, output):
        told = []
        prepare_cases(find_cases(pairs), output, None, progress=lambda *values: told.append(values))
        assert told == [(1, 4, "a"), (2, 4, "b"), (3, 4, "c"), (4, 4, "d")]

    def test_two_processes_write_what_one_writes(self, pairs, output):
        told = []
        prepare_cases(
            find_cases(pairs), output, (1.0, 1.0, 3.0), progress=lambda *values: told.append(values), workers=2
        )
        prepare_cases(find_cases(pairs), output.with_name("alone"), (1.0, 1.0, 3.0))
        assert files_of(output) == files_of(output.with_name("alone"))
        assert sorted(name for _, _, name in told) == ["a", "b", "c", "d"]


class TestSplit:
    def test_patients_stay_together(self, pairs, output):
        sources = [replace(case, patient="17" if case.name in "ab" else "18") for case in find_cases(pairs)]
        manifest = prepare_cases(sources, output, None, validation_share=0.5).manifest
        a, b, c, d = (case.split for case in manifest.cases)
        assert a == b != c == d

    def test_either_side_can_be_asked_for(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        training, validation = (
            {case.name for case in find_prepared_folder(output, split) or ()} for split in ("training", "validation")
        )
        assert training | validation == set("abcd")
        assert training
        assert validation
        assert not training & validation

    def test_the_order_of_sources_changes_nothing(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        prepare_cases(find_cases(pairs)[::-1], output.with_name("other"), None)
        assert files_of(output) == files_of(output.with_name("other"))
