import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock

from deepgrow3d_app.cases import preparation, prepared_case
from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.labelled_case import LabelledCase
from deepgrow3d_app.cases.layouts.prepared_folder import find_prepared_folder
from deepgrow3d_app.cases.preparation import Preparation
from deepgrow3d_app.cases.prepare import prepare_cases
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import Busy, InvalidInput, LabelMismatch, NotFound, UnreadableVolume
from deepgrow3d_app.volume.volume import Volume


@pytest.fixture
def output(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture
def pairs(tmp_path, write_pair):
    """Four cases a, b, c, d with the structures block (1) and plane (3)."""
    folder = tmp_path / "pairs"
    for name in "abcd":
        write_pair(folder / "images" / f"{name}.nii.gz", folder / "labels" / f"{name}.nii.gz")
    (folder / "structures.json").write_text('{"structures": {"block": 1, "plane": 3}}')
    return folder


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


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
        assert _files(output) == _files(output.with_name("alone"))
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
        assert _files(output) == _files(output.with_name("other"))


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
        monkeypatch.setattr(preparation, "resample", _raise(MemoryError()))
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


def _raise(error):
    def raising(*arguments, **options):
        raise error

    return raising


class TestResuming:
    def test_what_is_prepared_is_kept(self, pairs, output):
        first = prepare_cases(find_cases(pairs), output, None)
        before = {path: path.stat().st_mtime_ns for path in output.rglob("*.npy")}
        again = prepare_cases(find_cases(pairs), output, None)
        assert (first.new, again.new) == (4, 0)
        assert first.manifest == again.manifest
        assert {path: path.stat().st_mtime_ns for path in output.rglob("*.npy")} == before

    def test_names_that_no_case_has_voxels_of_keep_their_values(self, pairs, case_folder, output):
        (pairs / "structures.json").write_text('{"structures": {"absent": 2, "block": 1, "plane": 3}}')
        (case_folder / "structures.json").write_text('{"structures": {"plane": 1, "aorta": 3}}')
        sources = [*find_cases(pairs), *find_cases(case_folder)]
        first = prepare_cases(sources, output, None).manifest
        again = prepare_cases(sources, output, None)
        assert (again.new, again.manifest) == (0, first)
        assert first.table == {"absent": 1, "aorta": 2, "block": 3, "plane": 4}
        assert first.structures == {"aorta": 2, "block": 3, "plane": 4}

    def test_remarks_are_repeated(self, pairs, output, write_nifti, block_labels):
        block_labels[7, 7, 7] = 9
        write_nifti(block_labels, pairs / "labels" / "b.nii.gz")
        first = prepare_cases(find_cases(pairs), output, None)
        assert len(first.faults) == 1
        assert prepare_cases(find_cases(pairs), output, None).faults == first.faults

    def test_a_changed_file_is_prepared_again(self, pairs, output, write_nifti, block_labels):
        prepare_cases(find_cases(pairs), output, None)
        write_nifti(np.roll(block_labels, 1, axis=0), pairs / "labels" / "b.nii.gz")
        assert prepare_cases(find_cases(pairs), output, None).new == 1
        assert find_cases(output)[1].load().truth("block")[5].any()

    @pytest.mark.parametrize("file", [prepared_case.IMAGE_FILE, prepared_case.LABELS_FILE])
    @pytest.mark.parametrize("content", [None, b"\x93NUMPY", b"\x93NUMPY\x01\x00\x02\x00(\n"])
    def test_a_case_whose_arrays_were_damaged_is_prepared_again(self, pairs, output, file, content):
        prepare_cases(find_cases(pairs), output, None)
        whole = _files(output)
        array = output / "cases" / "b" / file
        array.unlink()
        if content is not None:
            array.write_bytes(content)
        report = prepare_cases(find_cases(pairs), output, None)
        assert (report.new, report.left_out) == (1, ())
        assert _files(output) == whole

    def test_another_spacing_prepares_all_again(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        assert prepare_cases(find_cases(pairs), output, (1.0, 1.0, 1.0)).new == 4
        assert find_cases(output)[0].load().volume.spacing_mm == (1.0, 1.0, 1.0)

    def test_an_interruption_leaves_whole_cases_and_the_next_run_goes_on(self, pairs, output, monkeypatch):
        def write_halfway(case, folder, made_from, remarks):
            prepared_case.write_prepared_case(case, folder, made_from, remarks)
            if case.name == "c":
                (folder / "case.json").unlink()
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(preparation, "write_prepared_case", write_halfway)
            with pytest.raises(KeyboardInterrupt):
                prepare_cases(find_cases(pairs), output, None)
        assert sorted(path.name for path in (output / "cases").iterdir()) == ["a", "b"]
        assert not (output / "manifest.json").exists()
        assert prepare_cases(find_cases(pairs), output, None).new == 2

    def test_a_full_disk_stops_the_run_and_leaves_the_case_as_it_was(self, pairs, output, monkeypatch, write_nifti):
        prepare_cases(find_cases(pairs), output, None)
        before = _files(output)
        write_nifti(np.ones((8, 8, 8), np.uint8), pairs / "labels" / "b.nii.gz")
        monkeypatch.setattr(preparation, "write_prepared_case", _raise(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            prepare_cases(find_cases(pairs), output, None)
        assert _files(output) == before

    def test_a_full_disk_is_told_as_such(self, tmp_path):
        voxels = np.zeros((32, 32, 32), np.int16)
        case = LabelledCase("a", Volume(voxels, np.eye(4)), voxels.astype(np.uint8), {})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # full after the header, in the middle of voxels
        try:
            with pytest.raises(OSError, match="File too large"):
                prepared_case.write_prepared_case(case, tmp_path, "", ())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    @pytest.mark.parametrize(
        ("on_ctrl_c", "killed", "told"),
        [
            ("default_int_handler", "os.kill, (os.getpid(), 9)", ""),
            ("default_int_handler", "os.killpg(0, 2) or (dict, ())", "stopped"),
            ("SIG_IGN", "os.killpg(0, 2) or (dict, (dict(self),))", "1 prepared"),  # as a shell's background jobs
        ],
    )
    def test_workers_end_with_the_run(self, pairs, output, on_ctrl_c, killed, told):
        """Its process is killed, or all get Ctrl+C while they begin. Its output is open while anyone is there."""
        program = f"""
            import os, pathlib, signal
            from deepgrow3d_app.cases.folders import find_cases
            from deepgrow3d_app.cases.prepare import prepare_cases
            from deepgrow3d_app.cases.source import CaseSource

            class Kills(dict):
                def __reduce__(self):
                    return {killed}

            signal.signal(signal.SIGINT, signal.{on_ctrl_c})
            (source, *_) = find_cases(pathlib.Path({str(pairs)!r}))
            fatal = CaseSource(source.name, source.patient, source.image, source.labels, Kills(source.names))
            try:
                print(prepare_cases([fatal], pathlib.Path({str(output)!r}), None, workers=2).new, "prepared")
            except KeyboardInterrupt:
                print("stopped")
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, start_new_session=True, check=False)
        assert done.stdout.strip() == told
        assert "Traceback" not in done.stderr

    def test_what_a_killed_process_left_is_cleared_away(self, pairs, output):
        partial = output / "cases" / ".0123.part"
        partial.mkdir(parents=True)
        (partial / "image.npy").touch()
        prepare_cases(find_cases(pairs), output, None)
        assert sorted(path.name for path in (output / "cases").iterdir()) == ["a", "b", "c", "d"]

    def test_a_case_that_is_no_longer_wanted_leaves_the_manifest_alone(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        prepare_cases(find_cases(pairs)[:3], output, None)
        assert [case.name for case in find_cases(output)] == ["a", "b", "c"]
        assert (output / "cases" / "d").is_dir()

    @pytest.mark.parametrize("made", ["in place", "beside"])
    def test_cases_are_not_prepared_among_other_files(self, pairs, tmp_path, made):
        """A prepared folder is read in place of all else that lies there: labels drawn later would not count."""
        output = pairs if made == "in place" else tmp_path / "studies"
        output.mkdir(exist_ok=True)
        (output / "ct.nii.gz").touch()
        before = _files(output)
        with pytest.raises(InvalidInput, match=r"would be read in place of what lies there\. Name a folder of its own"):
            prepare_cases(find_cases(pairs), output, None)
        assert _files(output) == before

    def test_a_list_of_cases_is_not_replaced_by_the_manifest(self, pairs, tmp_path):
        own = tmp_path / "study" / "manifest.json"
        own.parent.mkdir()
        images = [str(pairs / "images" / f"{name}.nii.gz") for name in "ab"]
        own.write_text(json.dumps({"cases": [{"image": file, "labels": file} for file in images]}))
        before = own.read_bytes()
        with pytest.raises(InvalidInput, match=r"holds 'manifest\.json', .* Name a folder of its own"):
            prepare_cases(find_cases(own), own.parent, None)
        assert own.read_bytes() == before

    def test_links_to_files_elsewhere_are_not_replaced(self, pairs, tmp_path):
        case = tmp_path / "study" / "cases" / "a"
        case.mkdir(parents=True)
        for name, folder in (("image", "images"), ("labels", "labels")):
            (case / f"{name}.nii.gz").symlink_to(pairs / folder / "a.nii.gz")
        with pytest.raises(InvalidInput, match=r"holds cases, .* Name a folder of its own"):
            prepare_cases(find_cases(case.parent), tmp_path / "study", None)
        assert sorted(path.name for path in case.iterdir()) == ["image.nii.gz", "labels.nii.gz"]

    def test_a_kill_while_the_manifest_is_written_stops_no_later_run(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        (output / ".0123abcd.part").write_bytes(b"{")
        assert prepare_cases(find_cases(pairs), output, None).new == 0

    def test_prepared_cases_are_not_prepared_into_themselves(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        before = _files(output)
        with pytest.raises(InvalidInput, match=r"holds cases, .* Name a folder of its own"):
            prepare_cases(find_cases(output), output, (2.0, 2.0, 2.0))
        assert _files(output) == before

    def test_two_runs_do_not_write_to_one_folder(self, pairs, output):
        output.mkdir()
        with FileLock(output / ".lock"), pytest.raises(Busy, match="Another process prepares cases"):
            prepare_cases(find_cases(pairs), output, None)


class TestDamagedPreparedFolder:
    @pytest.fixture
    def prepared(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        return output

    def test_the_manifest_may_be_named_itself(self, prepared):
        assert find_cases(prepared / "manifest.json") == find_cases(prepared)

    def test_a_later_version(self, prepared):
        manifest = json.loads((prepared / "manifest.json").read_text())
        (prepared / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))
        with pytest.raises(
            InvalidInput, match=r"is of version 2, this program reads version 1. Update this program, or prepare"
        ):
            find_cases(prepared)

    @pytest.mark.parametrize(
        "change",
        [
            {"spacing_mm": 3},
            {"structures": []},
            {"structures": {"a": float("inf")}},
            {"cases": [{"split": "test"}]},
            {"cases": [{"name": "a", "patient": "a", "split": "training", "folder": 2}]},
        ],
    )
    def test_a_damaged_manifest(self, prepared, change):
        manifest = json.loads((prepared / "manifest.json").read_text())
        (prepared / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(UnreadableVolume, match=r"manifest.json': .* Prepare the cases again"):
            find_cases(prepared)

    @pytest.mark.parametrize("content", ["{", '{"format": "deepgrow3d-cases", "version": 1}'])
    def test_preparing_again_mends_a_damaged_manifest(self, pairs, prepared, content):
        whole = _files(prepared)
        (prepared / "manifest.json").write_text(content)
        assert prepare_cases(find_cases(pairs), prepared, None).new == 0
        assert _files(prepared) == whole

    def test_another_manifest_json_is_no_prepared_folder(self, case_folder):
        (case_folder / "manifest.json").write_text("{}")
        assert find_cases(case_folder)[0].name == "one"

    @pytest.mark.parametrize("file", ["image.npy", "labels.npy", "case.json"])
    def test_a_damaged_or_missing_file(self, prepared, file):
        (source, *_) = find_cases(prepared)
        (prepared / "cases" / "a" / file).write_bytes(b"{")
        with pytest.raises(UnreadableVolume, match=f"{file}': .* Delete its folder and prepare the cases again"):
            source.load()
        (prepared / "cases" / "a" / file).unlink()
        with pytest.raises(UnreadableVolume, match=file):
            source.load()

    def test_arrays_of_other_types_and_shapes(self, prepared):
        (source, *_) = find_cases(prepared)
        np.save(source.labels, np.zeros((8, 8, 7), np.uint8))
        with pytest.raises(LabelMismatch, match=r"shape \(8, 8, 7\), its image \(8, 8, 8\)"):
            source.load()
        np.save(source.image, np.zeros((8, 8, 8), np.float32))
        with pytest.raises(UnreadableVolume, match=r"holds float32 \(8, 8, 8\), not int16"):
            source.load()

    def test_the_folder_may_be_moved(self, prepared):
        shutil.move(prepared, prepared.with_name("moved"))
        assert find_cases(prepared.with_name("moved"))[0].load().structures == {"block": 1, "plane": 3}


def test_a_preparation_of_a_missing_case_is_a_fault_and_leaves_nothing(tmp_path, case_folder):
    (source,) = find_cases(case_folder)
    source = replace(source, image=tmp_path / "none.nii.gz")
    outcome = Preparation(source, tmp_path / "out" / "one", None, {"block": 1, "plane": 3}).run()
    assert outcome.structures is None
    assert outcome.faults[0].is_left_out
    assert not (tmp_path / "out").exists()


def test_a_new_structure_in_one_case_leaves_the_others_prepared(output, tmp_path, write_pair):
    folder = tmp_path / "studies"
    sources = []
    for name, names in (("a", {"block": 1, "plane": 3}), ("b", {"block": 1}), ("c", {"plane": 1, "other": 3})):
        write_pair(folder / f"{name}.nii.gz", folder / f"{name}-labels.nii.gz")
        sources.append(CaseSource(name, name, folder / f"{name}.nii.gz", folder / f"{name}-labels.nii.gz", names))
    assert prepare_cases(sources[:2], output, None).new == 2
    before = _files(output / "cases" / "a")
    report = prepare_cases(sources, output, None)
    assert report.new == 1  # c alone
    assert report.manifest.structures == {"block": 1, "other": 2, "plane": 3}
    assert _files(output / "cases" / "a") == before
    labels = {case.name: np.unique(case.load().labels).tolist() for case in find_cases(output)}
    assert labels == {"a": [0, 1, 3], "b": [0, 1], "c": [0, 2, 3]}
