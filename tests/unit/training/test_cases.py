import json
import shutil
from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.layouts.prepared_folder import find_prepared_folder
from deepgrow3d_app.cases.prepare import prepare_cases
from deepgrow3d_app.errors import NotFound, TrainingError
from deepgrow3d_app.training.cases import CaseGroup, CasePool, Structure, TrainingCase, describe_groups, load_group


@pytest.fixture
def load(tiny_spec, tmp_path):
    """``load(folder, held_out)``: its group, and the lines that were told."""

    def load(folder, held_out=0):
        lines: list[str] = []
        return load_group(folder, tiny_spec, held_out, tmp_path / "cache", lines.append), lines

    return load


def write_labels(folder, labels, affine):
    nib.save(nib.Nifti1Image(labels, affine), folder / "labels.nii.gz")


def test_a_case_is_brought_to_ras_and_its_specks_are_left_out(group):
    (case,) = group.training
    (structure,) = case.structures
    # i and j are mirrored: 24 - 12 and 20 - 15.
    assert structure == Structure(3, 8 * 10 * 6, (12, 5, 3), (20, 15, 9))
    assert (case.shape, case.spacing_mm) == ((24, 20, 16), (2.0, 2.0, 2.0))
    opened = case.open()
    assert (opened.labels[12:20, 5:15, 3:9] == 3).all()
    assert (opened.volume.array[opened.labels == 3] == 100).all()


def test_voxels_stay_on_disk_until_a_case_is_opened(group):
    (case,) = group.training
    kept = [getattr(case, name) for name in ("source", "shape", "spacing_mm", "window", "structures")]
    assert not any(isinstance(value, np.ndarray) for value in kept)
    assert not hasattr(case, "__dict__")  # and so nothing else
    first, second = case.open(), case.open()
    for array, again in ((first.volume.array, second.volume.array), (first.labels, second.labels)):
        # The maps are read-only, copies would not be; and each is another map of the file.
        assert not array.flags.writeable
        assert not np.shares_memory(array, again)


def test_a_prepared_case_is_used_again(case_folder, tiny_spec, tmp_path):
    load_group(case_folder, tiny_spec, 0, tmp_path / "cache")
    (array,) = (tmp_path / "cache").rglob("image.npy")
    before = array.stat()
    load_group(case_folder, tiny_spec, 0, tmp_path / "cache")
    assert (array.stat().st_ino, array.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_process_that_does_not_prepare_reads_what_another_one_prepared(many_cases, tiny_spec, tmp_path):
    first = load_group(many_cases, tiny_spec, 1, tmp_path / "cache")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = load_group(many_cases, tiny_spec, 1, tmp_path / "cache", prepares=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    for one, other in ((first.training, second.training), (first.validation, second.validation)):
        assert [case.source for case in one] == [case.source for case in other] != []


@pytest.mark.parametrize("labels", [np.ones((4, 4, 4), np.uint8), np.ones((24, 20, 16), np.uint8)])
def test_a_case_whose_labels_lie_elsewhere_is_told_of_and_left_out(many_cases, load, labels):
    write_labels(many_cases / "b", labels, np.eye(4))
    group, lines = load(many_cases)
    assert [case.source.name for case in group.training] == ["a", "c", "d"]
    (line,) = lines
    assert line.startswith("left out: b: ")
    assert "labels.nii.gz" in line


def test_a_folder_of_nothing_but_faults_says_what_is_wrong(case_folder, load):
    write_labels(case_folder, np.ones((4, 4, 4), np.uint8), np.eye(4))
    with pytest.raises(TrainingError, match=r"can be used: .*4 x 4 x 4 voxels, its image .* 24 x 20 x 16"):
        load(case_folder)


def test_a_case_of_nothing_but_specks_is_told_of_and_left_out(many_cases, load):
    labels = np.zeros((24, 20, 16), np.uint8)
    labels[20, 10, 2:7] = 4
    for name in "ac":
        write_labels(many_cases / name, labels, np.diag([-2.0, -2.0, 2.0, 1.0]))
    group, lines = load(many_cases, held_out=2)
    assert [[case.source.name for case in part] for part in (group.training, group.validation)] == [["b"], ["d"]]
    assert lines == ["left out: a has no structure of at least 30 voxels"]
    write_labels(many_cases / "b", labels, np.diag([-2.0, -2.0, 2.0, 1.0]))
    with pytest.raises(TrainingError, match=r"has a structure of at least 30 voxels to learn from. Leave the folder"):
        load(many_cases, held_out=2)


def test_the_last_cases_of_a_folder_are_held_out(many_cases, load):
    for held_out, training in ((0, ["a", "b", "c", "d"]), (1, ["a", "b", "c"]), (3, ["a"])):
        group, _ = load(many_cases, held_out)
        assert [case.source.name for case in group.training] == training
        assert [case.source.name for case in group.validation] == ["a", "b", "c", "d"][len(training) :]
    for held_out in (4, 40):
        with pytest.raises(TrainingError, match=f"it has 4 cases of 4 patients, and the last {held_out} are held out"):
            load(many_cases, held_out)


def test_with_a_case_all_of_its_patient_is_held_out(many_cases, load):
    """Two scans of each patient; the last case alone would leave its patient on both sides."""
    patients = {"a": "P2", "b": "P1", "c": "P1", "d": "P2"}
    rows = [f"many/{name}/image.nii.gz,many/{name}/labels.nii.gz,{name},{patients[name]}" for name in patients]
    listed = many_cases.parent / "cases.csv"
    listed.write_text("\n".join(["image,labels,name,patient", *rows]).replace("many/", f"{many_cases.name}/"))
    group, _ = load(listed, held_out=1)
    assert [case.source.name for case in group.training] == ["b", "c"]
    assert [case.source.name for case in group.validation] == ["a", "d"]
    with pytest.raises(TrainingError, match="4 cases of 2 patients, and the last 2 are held out, with all others"):
        load(listed, held_out=2)


def test_a_case_folder_is_never_held_out(case_folder, load):
    group, _ = load(case_folder, held_out=40)
    assert (group.name, len(group.training), len(group.validation)) == ("box", 1, 0)


def test_a_folder_without_cases_is_not_found(load, tmp_path):
    with pytest.raises(NotFound, match="nowhere"):
        load(tmp_path / "nowhere")


class TestPreparedFolder:
    @pytest.fixture
    def prepared(self, many_cases):
        prepare_cases(find_cases(many_cases), many_cases.with_name("prepared"), (2.0, 2.0, 3.0), 0.25)
        return many_cases.with_name("prepared")

    def test_its_own_split_is_kept_and_it_is_read_where_it_lies(self, prepared, load, tmp_path):
        group, _ = load(prepared, held_out=40)
        assert [case.source for case in group.training] == find_prepared_folder(prepared, "training") != []
        assert [case.source for case in group.validation] == find_prepared_folder(prepared, "validation") != []
        assert group.training[0].spacing_mm == (2.0, 2.0, 3.0)
        assert not (tmp_path / "cache").exists()

    def test_one_without_training_cases_is_refused(self, prepared, load):
        manifest = json.loads((prepared / "manifest.json").read_text())
        for entry in manifest["cases"]:
            entry["split"] = "validation"
        (prepared / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(TrainingError, match=r"No case in .* is for training"):
            load(prepared)


def with_structures(case, *voxels):
    """``case`` as if it had structures of these sizes."""
    structures = tuple(Structure(value, size, (0, 0, 0), (1, 1, 1)) for value, size in enumerate(voxels, start=1))
    return TrainingCase(case.source, case.shape, case.spacing_mm, case.window, structures)


def test_larger_structures_are_drawn_somewhat_more_often(group):
    """Sizes of 1 and 2 ** 10: weights of 1 and 2."""
    case = with_structures(group.training[0], 1, 1024)
    generator = np.random.default_rng(0)
    drawn = Counter(case.draw_structure(generator).value for _ in range(1000))
    assert drawn[2] / 1000 == pytest.approx(2 / 3, abs=0.05)


def test_draws_follow_the_shares_of_the_groups(group):
    """One structure against 32: shares of 1 and 32 ** 0.35 = 3.364."""
    poor, rich = with_structures(group.training[0], 50), with_structures(group.training[0], *[50] * 16)
    pool = CasePool(
        [CaseGroup("poor", (poor,), ()), CaseGroup("held out", (), (poor,)), CaseGroup("", (rich,) * 2, ())]
    )
    assert pool.shares == pytest.approx([1 / 4.364, 3.364 / 4.364], rel=1e-3)
    generator = np.random.default_rng(0)
    drawn = Counter(pool.draw(generator) is poor for _ in range(1000))
    assert drawn[True] / 1000 == pytest.approx(1 / 4.364, abs=0.05)


@pytest.mark.parametrize("groups", [[], [CaseGroup("held out", (), ())]])
def test_without_training_cases_there_is_no_pool(groups):
    with pytest.raises(TrainingError, match="at least one folder"):
        CasePool(groups)


def test_what_a_model_has_seen_is_told_in_short(group, case_folder, load):
    shutil.copytree(case_folder, case_folder.with_name("other"))
    other, _ = load(case_folder.with_name("other"))
    assert json.loads(describe_groups([group, other])) == [
        {"name": "box", "cases": 1, "structures": 1},
        {"name": "other", "cases": 1, "structures": 1},
    ]


def test_arrays_that_another_machine_put_on_its_own_disk_are_told(case_folder, tiny_spec, tmp_path):
    with pytest.raises(TrainingError, match=r"no prepared cases in '.*cache', .* a disk that all machines share"):
        load_group(case_folder, tiny_spec, 0, tmp_path / "cache", prepares=False)
