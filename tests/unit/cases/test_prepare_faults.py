import os
from dataclasses import replace

import numpy as np
import pytest

from deepgrow3d_app.cases import preparation
from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.preparation import Preparation
from deepgrow3d_app.cases.prepare import prepare_cases
from deepgrow3d_app.errors import InvalidInput, NotFound
from tests.unit.cases.conftest import raising


class TestFaults:
    def test_a_broken_link_among_the_files_of_a_series_costs_no_other_case(self, pairs, output):
        image = pairs / "images" / "b.nii.gz"
        image.unlink()
        (pairs / "images" / "b").mkdir()
        (pairs / "images" / "b" / "1.dcm").symlink_to("nowhere.dcm")
        report = prepare_cases(find_cases(pairs), output, None)
        assert [(fault.case, fault.is_left_out) for fault in report.faults] == [("b", True)]
        assert [case.name for case in report.manifest.cases] == ["a", "c", "d"]

    @pytest.mark.parametrize(
        ("image", "fault"),
        [("y" * 256, "it cannot be opened (File name too long)"), ("circle.nii.gz", "there is no such file")],
    )
    def test_a_path_that_leads_nowhere_costs_no_other_case(self, pairs, output, image, fault):
        (pairs / "circle.nii.gz").symlink_to("circle.nii.gz")
        sources = find_cases(pairs)
        sources[1] = replace(sources[1], image=pairs / image)
        report = prepare_cases(sources, output, None)
        assert [(one.case, fault in one.message) for one in report.left_out] == [("b", True)]
        assert [case.name for case in report.manifest.cases] == ["a", "c", "d"]

    def test_a_name_in_another_encoding_than_utf_8(self, pairs, output):
        for folder in ("images", "labels"):
            os.rename(pairs / folder / "a.nii.gz", os.fsencode(pairs / folder) + b"/m\xfcller.nii.gz")
        manifest = prepare_cases(find_cases(pairs), output, None).manifest
        assert [case.name for case in manifest.cases] == ["b", "c", "d", "m\udcfcller"]
        assert len(find_cases(output)) == 4

    """A faulty case is left out or remarked on; the others are prepared."""

    @staticmethod
    def _only_fault(report, case="b", left_out=True):
        (fault,) = report.faults
        assert (fault.case, fault.is_left_out) == (case, left_out)
        assert report.left_out == ((fault,) if left_out else ())
        names = [entry.name for entry in report.manifest.cases]
        assert (case not in names) == left_out
        assert len(names) >= 3
        return fault

    def _prepare(self, pairs, output, spacing_mm=None, left_out=True):
        return self._only_fault(prepare_cases(find_cases(pairs), output, spacing_mm), left_out=left_out).message

    def test_missing(self, pairs, output):
        (pairs / "labels" / "b.nii.gz").unlink()
        assert "'b.nii.gz': there is no such file" in self._prepare(pairs, output)

    def test_truncated(self, pairs, output):
        file = pairs / "images" / "b.nii.gz"
        file.write_bytes(file.read_bytes()[:100])
        message = self._prepare(pairs, output)
        assert "Cannot read 'b.nii.gz'" in message
        assert "Check that the file is complete." in message

    def test_another_shape(self, pairs, output, write_nifti):
        write_nifti(np.ones((8, 8, 4), np.uint8), pairs / "labels" / "b.nii.gz")
        assert "has 8 x 8 x 4 voxels, its image 'b.nii.gz' has 8 x 8 x 8. Send a label" in self._prepare(pairs, output)

    def test_another_place(self, pairs, output, write_nifti, block_labels):
        write_nifti(block_labels, pairs / "labels" / "b.nii.gz", np.diag((-2.0, 2.0, 2.0, 1.0)))
        assert "Save it with the geometry of the image." in self._prepare(pairs, output)

    def test_fractional_labels(self, pairs, output, write_nifti):
        write_nifti(np.full((8, 8, 8), 0.5), pairs / "labels" / "b.nii.gz")
        assert "holds the value 0.5. A label map holds whole numbers" in self._prepare(pairs, output)

    def test_nothing_labelled(self, pairs, output, write_nifti):
        write_nifti(np.zeros((8, 8, 8), np.uint8), pairs / "labels" / "b.nii.gz")
        assert "has no voxel of any structure. Draw one, or leave the case out." in self._prepare(pairs, output)

    def test_nothing_left_at_the_spacing(self, pairs, output, write_nifti):
        labels = np.zeros((8, 8, 8), np.uint8)
        labels[1, 1, 1] = 1  # of two voxels equally near, the lower one is taken
        write_nifti(labels, pairs / "labels" / "b.nii.gz")
        (fault,) = prepare_cases(find_cases(pairs), output, (4.0, 4.0, 4.0)).left_out
        assert fault.case == "b"
        assert "At (4.0, 4.0, 4.0) mm nothing is left of block" in fault.message
        assert "Choose a finer spacing" in fault.message

    def test_an_absent_structure(self, pairs, output, write_nifti, block_labels):
        write_nifti(np.where(block_labels == 1, 1, 0).astype(np.uint8), pairs / "labels" / "b.nii.gz")
        assert "has no voxel of plane. If the image shows it, draw it." in self._prepare(pairs, output, left_out=False)

    def test_a_tiny_structure(self, pairs, output, write_nifti, block_labels):
        block_labels[0, 0, 0:2] = 1
        block_labels[1:5, 1:5, 1:5] = 0
        write_nifti(block_labels, pairs / "labels" / "b.nii.gz")
        assert "fewer than 30 voxels: block (2)" in self._prepare(pairs, output, left_out=False)

    def test_a_structure_that_the_spacing_loses(self, pairs, output, write_nifti, block_labels):
        block_labels[block_labels == 3] = 0
        block_labels[:, :, 7] = 3
        write_nifti(block_labels, pairs / "labels" / "b.nii.gz")
        report = prepare_cases(find_cases(pairs)[1:2], output, (2.0, 2.0, 6.0))
        assert any("loses plane at (2.0, 2.0, 6.0) mm. Choose a finer" in fault.message for fault in report.faults)

    def test_a_value_without_a_name(self, pairs, output, write_nifti, block_labels):
        block_labels[7, 7, 7] = 9
        write_nifti(block_labels, pairs / "labels" / "b.nii.gz")
        message = self._prepare(pairs, output, left_out=False)
        assert "values without a name, which became background: 9. Named are 1, 3" in message
        assert find_cases(output)[1].load().structures == {"block": 1, "plane": 3}

    def test_no_names_where_other_cases_have_some(self, pairs, case_folder, output):
        (case_folder / "structures.json").unlink()
        report = prepare_cases([*find_cases(pairs), *find_cases(case_folder)], output, None)
        assert "Name them in a structures.json" in self._only_fault(report, "one").message

    def test_one_name_for_two_cases(self, pairs, case_folder, output):
        (other,) = find_cases(case_folder)
        (fault,) = prepare_cases([*find_cases(pairs), replace(other, name="b")], output, None).faults
        assert fault.is_left_out
        assert fault.file == other.image
        assert "are both called 'b'. Rename one of them" in fault.message

    @pytest.mark.parametrize("name", ["../up", "a/b", "..", ".hidden", ""])
    def test_a_name_that_is_no_folder(self, pairs, output, name):
        sources = [*find_cases(pairs)[1:], replace(find_cases(pairs)[0], name=name)]
        report = prepare_cases(sources, output, None)
        assert "cannot name a folder" in self._only_fault(report, name).message

    def test_every_fault_is_reported_in_one_run(self, pairs, output):
        for name in "abcd":
            (pairs / "images" / f"{name}.nii.gz").write_bytes(b"no image")
        report = prepare_cases(find_cases(pairs), output, None)
        assert [fault.case for fault in report.faults] == list("abcd")
        with pytest.raises(NotFound, match="lists no labelled case"):
            find_cases(output)

    def test_out_of_memory(self, pairs, output, monkeypatch):
        monkeypatch.setattr(preparation, "resample", raising(MemoryError()))
        report = prepare_cases(find_cases(pairs), output, (1.0, 1.0, 1.0))
        assert "not enough memory for it. Use fewer workers" in report.faults[0].message

    @pytest.mark.parametrize("place", [0, 1, 3])
    def test_a_killed_process_costs_its_case_alone(self, pairs, output, place):
        # A source that kills the process that unpickles it, as the kernel does when memory runs out.
        sources = find_cases(pairs)
        sources[place] = replace(sources[place], names=_Killer(sources[place].names))
        report = prepare_cases(sources, output, None, workers=2)
        (fault,) = report.left_out
        assert fault.case == sources[place].name
        assert "was killed, most likely for want of memory, although no other was at work" in fault.message
        assert [case.name for case in report.manifest.cases] == [one.name for one in sources if one.name != fault.case]

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            ({"spacing_mm": (1.0, 0.0, 1.0)}, r"spacing \(1.0, 0.0, 1.0\) mm is out of range. Choose"),
            ({"validation_share": 1.0}, "share for validation is 1.0. Choose one from 0 to below 1"),
            ({"workers": 0}, "Choose at least 1"),
        ],
    )
    def test_arguments_out_of_bounds(self, pairs, output, arguments, fault):
        with pytest.raises(InvalidInput, match=fault):
            prepare_cases(find_cases(pairs), output, **{"spacing_mm": None, **arguments})
        assert not output.exists()

    def test_no_source(self, output):
        with pytest.raises(NotFound, match="no case to prepare"):
            prepare_cases([], output, None)


class _Killer(dict[str, int]):
    def __reduce__(self):
        return os._exit, (9,)


def test_a_preparation_of_a_missing_case_is_a_fault_and_leaves_nothing(tmp_path, case_folder):
    (source,) = find_cases(case_folder)
    source = replace(source, image=tmp_path / "none.nii.gz")
    outcome = Preparation(source, tmp_path / "out" / "one", None, {"block": 1, "plane": 3}).run()
    assert outcome.structures is None
    assert outcome.faults[0].is_left_out
    assert not (tmp_path / "out").exists()
