"""Whole evaluations of a tiny case, with methods that need no network."""

import errno
import json
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.errors import InvalidInput, InvalidRequest, NotFound, ServerFault, UnreadableVolume
from deepgrow3d_app.evaluation.results import MethodRecord, Protocol, Results
from deepgrow3d_app.evaluation.run import Evaluation, run_evaluation

STRUCTURES = {"liver": 1, "a/b <i>": 2}


class Growing:
    """Answers with a box that grows by ``step`` voxels with every click; fails at its ``dies_at``-th answer."""

    def __init__(self, name, step, dies_at=None):
        self.record = MethodRecord(name, {"step": str(step)})
        self.step = step
        self.dies_at = dies_at
        self.answers = 0

    def segment(self, volume, clicks, previous):
        self.answers += 1
        if self.answers == self.dies_at:
            raise ServerFault("nowhere", "it was killed")
        i, j, k = clicks[0].index
        reach = self.step * len(clicks)
        mask = np.zeros(volume.shape, np.uint8)
        mask[max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1, max(0, k - 1) : k + 2] = 1
        return mask


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "box"
    folder.mkdir()
    labels = np.zeros((20, 16, 12), np.uint8)
    labels[2:9, 2:9, 3:6] = 1
    labels[12:19, 9:14, 7:10] = 2
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image((labels * 50).astype(np.int16), affine), folder / "image.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / "labels.nii.gz")
    names = {name: {"value": value} for name, value in STRUCTURES.items()}
    (folder / "structures.json").write_text(json.dumps({"structures": {**names, "spleen": {"value": 9}}}))
    return find_cases(folder)


def evaluation(sources, *methods, **changes):
    methods = methods or (Growing("one", 1), Growing("two", 2))
    return Evaluation(sources, methods, users=("perfect", "noisy"), protocol=Protocol(click_count=3), **changes)


def test_every_structure_method_user_and_choice_of_clicks_is_a_trial(sources, tmp_path):
    shares = []
    results = run_evaluation(evaluation(sources), tmp_path / "out", lambda progress: shares.append(progress.share))
    # Structures times (perfect: one, two, and two with the clicks of one; noisy: one and two).
    assert len(results.trials) == 2 * (3 + 2)
    assert {trial.structure for trial in results.trials} == set(STRUCTURES)
    assert all(len(trial.rounds) == 3 for trial in results.trials)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    by_key = {trial.key: trial for trial in results.trials}
    own = by_key["box", "liver", "one", "one", "perfect", 0]
    given = by_key["box", "liver", "two", "one", "perfect", 0]
    assert [r.index for r in given.rounds] == [r.index for r in own.rounds]
    assert own.voxels == 7 * 7 * 3
    assert own.volume_ml == pytest.approx(7 * 7 * 3 * 2 / 1000)
    assert Results.load(tmp_path / "out" / "results.json") == results
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    masks = {f"masks/box/{name}-{user}.nii.gz" for name in ("liver", "a%2Fb %3Ci%3E") for user in ("perfect", "noisy")}
    assert files == {"results.json", "summary.csv", "report.html", *masks}


def test_each_hand_of_the_noisy_user_misses_in_its_own_way_and_the_first_as_a_single_one(sources, tmp_path):
    def clicks(results, method, hand):
        return [
            [r.index for r in trial.rounds]
            for trial in results.trials
            if (trial.user, trial.method, trial.hand) == ("noisy", method, hand)
        ]

    one_hand = run_evaluation(evaluation(sources), tmp_path / "one", lambda progress: None)
    rules = Protocol(click_count=3, hands=3)
    hands = run_evaluation(replace(evaluation(sources), protocol=rules), tmp_path / "three", lambda progress: None)
    # As before for the perfect user; for the noisy one, three hands with each of the two methods.
    assert len(hands.trials) == 2 * (3 + 3 * 2)
    assert {trial.hand for trial in hands.trials if trial.user == "perfect"} == {0}
    assert clicks(hands, "one", 0) == clicks(one_hand, "one", 0)
    assert clicks(hands, "one", 0) != clicks(hands, "one", 1) != clicks(hands, "one", 2) != clicks(hands, "one", 0)
    # A hand misses alike with every method, as far as the methods' answers are alike: here at the first click.
    assert [c[0] for c in clicks(hands, "one", 1)] == [c[0] for c in clicks(hands, "two", 1)]
    masks = {path.name for path in (tmp_path / "three" / "masks" / "box").glob("liver-*")}
    assert masks == {f"liver-{who}.nii.gz" for who in ("perfect", "noisy", "noisy-2", "noisy-3")}
    assert Results.load(tmp_path / "three" / "results.json") == hands


def test_a_run_that_died_goes_on_and_finds_the_same(sources, tmp_path):
    def without_seconds(results):
        return [[(r.index, r.dice, r.nsd, r.hd95_mm) for r in trial.rounds] for trial in results.trials]

    whole = run_evaluation(evaluation(sources), tmp_path / "whole", lambda progress: None)
    dying = evaluation(sources, Growing("one", 1, dies_at=8), Growing("two", 2))
    with pytest.raises(ServerFault):
        run_evaluation(dying, tmp_path / "killed", lambda progress: None)
    assert not (tmp_path / "killed" / "results.json").exists()
    with (tmp_path / "killed" / "unfinished.jsonl").open("a") as file:
        file.write('{"case": "box", "struc')  # the line that was being written
    one, two = Growing("one", 1), Growing("two", 2)
    resumed = run_evaluation(evaluation(sources, one, two), tmp_path / "killed", lambda progress: None)
    assert without_seconds(resumed) == without_seconds(whole)
    # Of method one's 12 answers, the 6 of the two finished trials were not asked for again.
    assert one.answers == 6
    assert not (tmp_path / "killed" / "unfinished.jsonl").exists()


def test_a_full_disk_names_its_file_and_the_run_goes_on_once_there_is_room(sources, tmp_path, monkeypatch):
    journal = tmp_path / "unfinished.jsonl"

    def fsync(descriptor):
        """The setting and the first trial get to the disk, of the second trial a part."""
        is_journal = journal.exists() and os.path.samestat(os.fstat(descriptor), journal.stat())
        if is_journal and journal.read_text().count("\n") == 3:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - 9)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=r"No space left on device: '.*unfinished.jsonl'"):
            run_evaluation(evaluation(sources, Growing("one", 1)), tmp_path, lambda progress: None)
    method = Growing("one", 1)
    run_evaluation(evaluation(sources, method), tmp_path, lambda progress: None)
    assert method.answers == 9  # of 12


def test_a_damaged_line_of_an_unfinished_run_is_told_and_nothing_changes(sources, tmp_path):
    with pytest.raises(ServerFault):
        run_evaluation(evaluation(sources, Growing("one", 1, dies_at=8)), tmp_path, lambda progress: None)
    journal = tmp_path / "unfinished.jsonl"
    head, first, *others = journal.read_text().splitlines(keepends=True)
    journal.write_text(head + first.replace("rounds", "rinds") + "".join(others))
    before = journal.read_bytes()
    with pytest.raises(InvalidRequest, match=r"unfinished.jsonl' is damaged in line 2\. Remove that line"):
        run_evaluation(evaluation(sources, Growing("one", 1)), tmp_path, lambda progress: None)
    assert journal.read_bytes() == before
    journal.write_text(head + "".join(others))
    method = Growing("one", 1)
    run_evaluation(evaluation(sources, method), tmp_path, lambda progress: None)
    assert method.answers == 9  # of 12, the second trial's three are known


def test_a_run_that_died_in_the_second_hand_goes_on_with_it(sources, tmp_path):
    def of(method):
        return replace(evaluation(sources, method), protocol=Protocol(click_count=3, hands=2))

    whole = run_evaluation(of(Growing("one", 1)), tmp_path / "whole", lambda progress: None)
    with pytest.raises(ServerFault):  # of the first structure, the perfect user and the first hand are done
        run_evaluation(of(Growing("one", 1, dies_at=8)), tmp_path / "killed", lambda progress: None)
    method = Growing("one", 1)
    resumed = run_evaluation(of(method), tmp_path / "killed", lambda progress: None)
    assert method.answers == 2 * 3 * 3 - 2 * 3
    assert [trial.key for trial in resumed.trials] == [trial.key for trial in whole.trials]
    assert [[r.index for r in t.rounds] for t in resumed.trials] == [[r.index for r in t.rounds] for t in whole.trials]


def test_results_from_before_there_were_hands_are_read(sources, tmp_path):
    results = run_evaluation(evaluation(sources), tmp_path / "out", lambda progress: None)
    file = tmp_path / "out" / "results.json"
    content = json.loads(file.read_text())
    del content["setting"]["protocol"]["hands"]
    for trial in content["trials"]:
        del trial["hand"]
    file.write_text(json.dumps(content))
    assert Results.load(file) == results


def test_a_finished_evaluation_is_not_done_again_but_its_report_is(sources, tmp_path):
    run_evaluation(evaluation(sources), tmp_path / "out", lambda progress: None)
    (tmp_path / "out" / "report.html").unlink()
    one, two = Growing("one", 1), Growing("two", 2)
    run_evaluation(evaluation(sources, one, two), tmp_path / "out", lambda progress: None)
    assert one.answers == two.answers == 0
    assert (tmp_path / "out" / "report.html").exists()


def test_a_folder_with_another_evaluation_is_left_alone(sources, tmp_path):
    run_evaluation(evaluation(sources), tmp_path / "out", lambda progress: None)
    before = (tmp_path / "out" / "results.json").read_bytes()
    with pytest.raises(InvalidRequest, match="holds another evaluation"):
        run_evaluation(evaluation(sources, Growing("one", 3)), tmp_path / "out", lambda progress: None)
    assert (tmp_path / "out" / "results.json").read_bytes() == before


def test_renamed_structures_are_another_evaluation(sources, tmp_path):
    run_evaluation(evaluation(sources), tmp_path / "out", lambda progress: None)
    renamed = [replace(sources[0], names={"spleen": 1, "liver": 2})]
    with pytest.raises(InvalidRequest, match="holds another evaluation"):
        run_evaluation(evaluation(renamed), tmp_path / "out", lambda progress: None)


def test_structures_that_cannot_be_scored_are_refused(sources, tmp_path):
    with pytest.raises(NotFound, match=r"no structure 'heart' in the cases\. They have: liver, a/b <i>, spleen"):
        run_evaluation(evaluation(sources, structures=("liver", "heart")), tmp_path / "out", lambda progress: None)
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotFound, match="'spleen' has no voxel"):
        run_evaluation(evaluation(sources, structures=("spleen",)), tmp_path / "out", lambda progress: None)


def test_results_of_another_format_are_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"format": "something else"}')
    with pytest.raises(InvalidInput, match="no evaluation of format"):
        Results.load(tmp_path / "results.json")
    with pytest.raises(InvalidInput, match="cannot be opened"):
        Results.load(tmp_path / "none.json")


def test_a_case_without_its_labels_is_refused_by_name_and_nothing_is_written(sources, tmp_path):
    sources[0].labels.unlink()
    with pytest.raises(UnreadableVolume, match=r"'labels.nii.gz': the case 'box' needs it.*No such file.*Add the file"):
        run_evaluation(evaluation(sources), tmp_path / "out", lambda progress: None)
    assert not (tmp_path / "out").exists()
