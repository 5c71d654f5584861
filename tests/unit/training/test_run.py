import dataclasses
import errno
import itertools
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from deepgrow3d_app.errors import Busy, InvalidRequest, TrainingError
from deepgrow3d_app.model import checkpoint
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.training import run as run_training_module
from deepgrow3d_app.training import run_folder
from deepgrow3d_app.training.log import Progress, TrainingLog
from deepgrow3d_app.training.plan import Budget, read_plan
from deepgrow3d_app.training.ranks import Ranks
from deepgrow3d_app.training.run import REPORT_STEPS, RunRequest, run_training
from deepgrow3d_app.training.run_folder import RunFolder

ALONE = Ranks(0, 1, torch.device("cpu"))


class Killed(BaseException):
    """Nothing in the program sees it coming."""


class Run:
    """A run's folder, the cases it is trained on, and what it reports and tells."""

    def __init__(self, path, plan, cases, held_out=0):
        self.folder = RunFolder(path)
        self.plan = plan
        self.cases = cases
        self.held_out = held_out
        self.reported: list[Progress] = []
        self.told: list[str] = []
        self.killed_at = -1

    def train(self, steps, minutes=None, **changes):
        request = RunRequest([self.cases], self.held_out, command="by hand")
        request = dataclasses.replace(request, **changes)
        self.plan = dataclasses.replace(self.plan, budget=Budget(steps, minutes))
        return run_training(request, self.plan, self.folder, ALONE, self.report, self.told.append)

    def report(self, progress):
        self.reported.append(progress)
        if progress.step == self.killed_at:
            raise Killed

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
def run(tmp_path, plan, case_folder):
    return Run(tmp_path / "run", plan, case_folder)


def test_a_run_leaves_its_plan_a_network_a_log_and_curves(run, plan):
    trainer = run.train(5)
    assert trainer.step == 5
    assert read_plan(str(run.folder.plan_file)) == run.plan
    network = Checkpoint.load(run.folder.model_file)
    assert network.spec == plan.spec
    assert network.origin["steps"] == "5"
    assert network.origin["command"] == "by hand"
    assert json.loads(network.origin["data"]) == [{"name": "box", "cases": 1, "structures": 1}]
    assert json.loads(network.origin["recipe"]) == json.loads(plan.to_json())["recipe"]
    network.network()
    for name, weight in trainer.average.weights.items():
        assert torch.equal(network.weights[name], weight.half())
    assert run.steps_of_log == [progress.step for progress in run.reported] == [2, 4, 5]
    assert [line["done"] for line in run.log] == pytest.approx([0.4, 0.8, 1.0])
    assert all(math.isfinite(line["loss"]) and line["validation"] is None for line in run.log)
    assert [line["elapsed_s"] for line in run.log] == sorted(line["elapsed_s"] for line in run.log)
    assert list((run.folder.path / "tensorboard").glob("events.out.tfevents.*"))
    assert not run.folder.best_file.exists()
    assert not list(run.folder.path.glob(".*.part"))


def test_a_line_is_logged_every_so_many_steps_and_at_the_end(run, plan):
    run.plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, validate_every=1000))
    run.train(REPORT_STEPS + 1)
    assert run.steps_of_log == [REPORT_STEPS, REPORT_STEPS + 1]


def test_the_best_network_is_kept_where_there_are_validation_cases(tmp_path, plan, many_cases):
    recipe = dataclasses.replace(plan.recipe, validation_clicks=3, validation_structures=1)
    run = Run(tmp_path / "run", dataclasses.replace(plan, recipe=recipe), many_cases, held_out=2)
    run.train(5)
    assert [set(line["validation"]) for line in run.log] == [{"1", "3"}] * 3
    scores = {line["step"]: sum(line["validation"].values()) / 2 for line in run.log}
    assert all(0 <= score <= 1 for score in scores.values())
    best = Checkpoint.load(run.folder.best_file)
    assert scores[int(best.origin["steps"])] == max(scores.values())
    assert run.state["best"] == pytest.approx(max(scores.values()))
    assert json.loads(best.origin["data"])[0]["cases"] == 2


def test_cases_that_are_left_out_are_told_of(tmp_path, plan, many_cases):
    (many_cases / "c" / "labels.nii.gz").write_bytes(b"no image")
    run = Run(tmp_path / "run", plan, many_cases)
    run.train(1)
    (line,) = run.told
    assert line.startswith("left out: c: ")
    assert json.loads(Checkpoint.load(run.folder.model_file).origin["data"])[0]["cases"] == 3


def test_a_run_starts_from_another_networks_weights_and_says_so(run, tmp_path, plan, case_folder):
    run.train(2)
    still = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, learning_rate=1e-12))
    second = Run(tmp_path / "second", still, case_folder)
    second.train(1, start_from=run.folder.model_file)
    first, then = Checkpoint.load(run.folder.model_file), Checkpoint.load(second.folder.model_file)
    assert json.loads(then.origin["started_from"]) == first.origin
    for name, weight in first.weights.items():
        torch.testing.assert_close(then.weights[name], weight)


def files_of(folder):
    """What every file of a run holds, except the cases and the lock."""
    files = [path for path in folder.path.rglob("*") if path.is_file() and folder.cases not in path.parents]
    return {path: path.read_bytes() for path in files if path.name != ".lock"}


class TestResumption:
    def test_a_resumed_run_learns_what_an_unbroken_one_learns(self, run, tmp_path, plan, case_folder):
        whole = Run(tmp_path / "whole", plan, case_folder)
        expected = whole.train(8)
        run.killed_at = 4  # between two saves
        with pytest.raises(Killed):
            run.train(8)
        assert run.steps_of_log == [2, 4]
        assert run.state["step"] == 3
        run.killed_at = -1
        found = run.resume(8)
        assert found.step == 8
        assert list(found.recent.losses) == pytest.approx(list(expected.recent.losses), rel=1e-3)
        assert run.steps_of_log == whole.steps_of_log == [2, 4, 6, 8]
        assert [line["learning_rate"] for line in run.log] == [line["learning_rate"] for line in whole.log]
        elapsed_s = [line["elapsed_s"] for line in run.log]
        assert elapsed_s == sorted(elapsed_s)

    def test_a_run_that_was_killed_before_its_first_save_starts_at_the_first_step(self, run, plan):
        run.folder.path.mkdir()
        run.folder.begin(plan)
        assert run.folder.read_state() is None
        assert run.resume(2).step == 2

    def test_a_finished_run_goes_on_with_a_larger_budget_and_not_with_the_same(self, run):
        run.train(2)
        lines = run.folder.log_file.read_text()
        assert run.resume(2).step == 2
        assert run.folder.log_file.read_text() == lines
        assert run.resume(3).step == 3
        assert read_plan(str(run.folder.plan_file)).budget == Budget(steps=3)

    def test_another_recipe_is_refused_and_nothing_changes(self, run, plan):
        run.train(2)
        before = files_of(run.folder)
        run.plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, max_clicks=7))
        with pytest.raises(InvalidRequest, match="another plan: max_clicks is 7 and not 4"):
            run.train(4, resumes=True)
        assert files_of(run.folder) == before

    def test_a_network_whose_state_is_gone_is_not_trained_over(self, run):
        run.train(2)
        run.folder.state_file.unlink()
        before = files_of(run.folder)
        with pytest.raises(TrainingError, match=r"no '.*state.pt' to go on from. .*still holds the network"):
            run.resume(2)
        assert files_of(run.folder) == before

    def test_a_run_that_was_killed_before_its_first_save_knows_what_it_started_from(
        self, run, tmp_path, plan, case_folder, monkeypatch
    ):
        def kill(*arguments, **options):
            raise Killed

        run.train(2)
        still = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, learning_rate=1e-12))
        second = Run(tmp_path / "second", still, case_folder)
        with monkeypatch.context() as patched:
            patched.setattr(run_training_module, "load_group", kill)
            with pytest.raises(Killed):
                second.train(1, start_from=run.folder.model_file)
        second.resume(1)
        first, then = Checkpoint.load(run.folder.model_file), Checkpoint.load(second.folder.model_file)
        assert json.loads(then.origin["started_from"]) == first.origin
        for name, weight in first.weights.items():
            torch.testing.assert_close(then.weights[name], weight)

    def test_a_torn_line_and_lines_after_the_saved_state_are_dropped(self, run):
        run.train(4)
        lines = run.folder.log_file.read_text()
        run.folder.log_file.write_text(lines + '{"step": 6, "loss": "of a life before"}\n{"step": 8, "lo')
        run.resume(8)
        assert run.steps_of_log == [2, 4, 6, 8]
        assert run.folder.log_file.read_text().startswith(lines)
        assert all(isinstance(line["loss"], float) for line in run.log)

    def test_time_counts_from_the_very_start(self, run):
        run.train(1)
        run.folder.write_state({**run.state, "elapsed_s": 3600.0})
        run.resume(2)
        assert run.log[-1]["elapsed_s"] >= 3600.0
        assert run.state["elapsed_s"] >= 3600.0
        assert run.resume(100_000, minutes=60).step == 2  # the hour is over

    def test_the_best_validation_so_far_is_remembered(self, tmp_path, plan, many_cases):
        recipe = dataclasses.replace(plan.recipe, validation_clicks=1, validation_structures=1)
        run = Run(tmp_path / "run", dataclasses.replace(plan, recipe=recipe), many_cases, held_out=1)
        run.train(1)
        state = run.state
        run.folder.write_state({**state, "best": 2.0})  # which nothing exceeds
        before = run.folder.best_file.read_bytes()
        run.resume(3)
        assert run.state["best"] == 2.0
        assert run.folder.best_file.read_bytes() == before

    def test_other_cases_are_refused_and_nothing_changes(self, run, many_cases):
        run.train(2)
        before = files_of(run.folder)
        run.cases = many_cases
        with pytest.raises(TrainingError, match="Name the same folders in the same order, with the same --held-out"):
            run.resume(2)
        assert files_of(run.folder) == before

    def test_without_a_run_it_is_refused(self, run):
        with pytest.raises(InvalidRequest, match=r"no run in '.*run' to resume. Leave --resume out"):
            run.train(1, resumes=True)
        assert files_of(run.folder) == {}

    @pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no state"])
    def test_a_damaged_state_is_refused_and_the_network_is_kept(self, run, damage):
        run.train(1)
        run.folder.state_file.write_bytes(damage(run.folder.state_file.read_bytes()))
        before = files_of(run.folder)
        with pytest.raises(
            TrainingError, match=r"state.pt' is damaged. .*'model.safetensors' still holds the network"
        ) as caught:
            run.resume(1)
        assert len(str(caught.value).splitlines()) == 1
        assert files_of(run.folder) == before
        Checkpoint.load(run.folder.model_file).network()

    def test_a_state_of_another_version_is_refused(self, run, monkeypatch):
        run.train(1)
        monkeypatch.setattr(run_folder, "STATE_VERSION", run_folder.STATE_VERSION + 1)
        with pytest.raises(TrainingError, match="another version"):
            run.resume(2)


@pytest.mark.parametrize("left", ["state.pt", "model.safetensors"])
def test_a_folder_with_a_run_is_refused_and_left_as_it_is(run, left):
    run.train(1)
    (run.folder.path / ({"state.pt", "model.safetensors"} - {left}).pop()).unlink()
    before = files_of(run.folder)
    with pytest.raises(InvalidRequest, match=r"holds a run. Go on with it by --resume"):
        run.train(1)
    assert files_of(run.folder) == before


LOCKS = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_train_in_one_folder(run):
    run.folder.path.mkdir()
    command = [sys.executable, "-c", LOCKS, str(run.folder.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy, match="Another process trains in"):
            run.train(1)
        assert files_of(run.folder) == {}
        other.kill()
    # The lock of a process that was killed is free.
    assert run.train(1).step == 1


@pytest.mark.parametrize("full_for", ["state.pt", "model.safetensors", "log.jsonl"])
def test_on_a_full_disk_the_run_stops_and_can_go_on_from_its_last_save(run, monkeypatch, full_for):
    """Saves are at 0, 3 and 6 steps, lines of the log at 2 and 4. The disk is full after three steps."""
    disk = {"full": False}

    def full_or(write):
        def wrapped(path_or_self, *arguments):
            if disk["full"]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(path_or_self, *arguments)

        return wrapped

    place = {"state.pt": (run_folder, "replace_file"), "model.safetensors": (checkpoint, "replace_file")}
    owner, name = place.get(full_for, (TrainingLog, "write"))
    monkeypatch.setattr(owner, name, full_or(getattr(owner, name)))
    save_state = RunFolder.write_state

    def save_and_fill(folder, state):
        save_state(folder, state)
        disk["full"] = state["step"] == 3

    monkeypatch.setattr(RunFolder, "write_state", save_and_fill)
    stops_at = 4 if full_for == "log.jsonl" else 6
    told = (
        rf"run' cannot be written to \(.*No space left.*\), at step {stops_at}. What was saved last, at step 3, is kept"
    )
    with pytest.raises(TrainingError, match=told):
        run.train(8)
    assert run.state["step"] == 3
    assert not list(run.folder.path.glob(".*.part"))
    Checkpoint.load(run.folder.model_file).network()

    disk["full"] = False
    monkeypatch.setattr(RunFolder, "write_state", save_state)
    assert run.resume(8).step == 8
    assert run.steps_of_log == [2, 4, 6, 8]


class TestBudget:
    def test_by_hand(self):
        assert Budget(steps=200).done(50, 1e9) == 0.25
        assert Budget(minutes=10).done(10**9, 150.0) == 0.25
        assert Budget(steps=200, minutes=10).done(50, 300.0) == 0.5
        assert Budget(steps=200, minutes=10).done(150, 300.0) == 0.75
        assert Budget(steps=200).done(200, 0.0) == 1.0

    def test_one_without_an_end_is_refused(self):
        with pytest.raises(InvalidRequest, match="Nothing says when training ends"):
            Budget()

    @pytest.mark.parametrize(
        ("steps", "minutes", "told"), [(0, None, "0 steps"), (10, -1.5, "-1.5 minutes"), (-3, 5.0, "-3 steps")]
    )
    def test_one_that_is_not_positive_is_refused(self, steps, minutes, told):
        with pytest.raises(InvalidRequest, match=f"cannot end after {told}. Choose a positive number"):
            Budget(steps, minutes)

    def test_a_run_ends_with_its_minutes(self, run, monkeypatch):
        """Whenever the clock is looked at, a second has passed."""
        clock = itertools.count()
        monkeypatch.setattr(run_training_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        trainer = run.train(100_000, minutes=0.5)
        assert 0 < trainer.step < 30
        assert run.log[-1]["step"] == trainer.step
        assert run.state["elapsed_s"] >= 30
