import json
import resource
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from filelock import FileLock

from deepgrow3d_app.cases import preparation, prepared_case
from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.labelled_case import LabelledCase
from deepgrow3d_app.cases.prepare import prepare_cases
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import Busy, InvalidInput
from deepgrow3d_app.volume.volume import Volume
from tests.unit.cases.conftest import files_of, raising


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
        whole = files_of(output)
        array = output / "cases" / "b" / file
        array.unlink()
        if content is not None:
            array.write_bytes(content)
        report = prepare_cases(find_cases(pairs), output, None)
        assert (report.new, report.left_out) == (1, ())
        assert files_of(output) == whole

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
        before = files_of(output)
        write_nifti(np.ones((8, 8, 8), np.uint8), pairs / "labels" / "b.nii.gz")
        monkeypatch.setattr(preparation, "write_prepared_case", raising(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            prepare_cases(find_cases(pairs), output, None)
        assert files_of(output) == before

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
        before = files_of(output)
        with pytest.raises(InvalidInput, match=r"would be read in place of what lies there\. Name a folder of its own"):
            prepare_cases(find_cases(pairs), output, None)
        assert files_of(output) == before

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
        before = files_of(output)
        with pytest.raises(InvalidInput, match=r"holds cases, .* Name a folder of its own"):
            prepare_cases(find_cases(output), output, (2.0, 2.0, 2.0))
        assert files_of(output) == before

    def test_two_runs_do_not_write_to_one_folder(self, pairs, output):
        output.mkdir()
        with FileLock(output / ".lock"), pytest.raises(Busy, match="Another process prepares cases"):
            prepare_cases(find_cases(pairs), output, None)


def test_a_new_structure_in_one_case_leaves_the_others_prepared(output, tmp_path, write_pair):
    folder = tmp_path / "studies"
    sources = []
    for name, names in (("a", {"block": 1, "plane": 3}), ("b", {"block": 1}), ("c", {"plane": 1, "other": 3})):
        write_pair(folder / f"{name}.nii.gz", folder / f"{name}-labels.nii.gz")
        sources.append(CaseSource(name, name, folder / f"{name}.nii.gz", folder / f"{name}-labels.nii.gz", names))
    assert prepare_cases(sources[:2], output, None).new == 2
    before = files_of(output / "cases" / "a")
    report = prepare_cases(sources, output, None)
    assert report.new == 1  # c alone
    assert report.manifest.structures == {"block": 1, "other": 2, "plane": 3}
    assert files_of(output / "cases" / "a") == before
    labels = {case.name: np.unique(case.load().labels).tolist() for case in find_cases(output)}
    assert labels == {"a": [0, 1, 3], "b": [0, 1], "c": [0, 2, 3]}
