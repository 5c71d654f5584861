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

from deepgrow3d_app.errors import Busy, InvalidRequest, NotFound, TrainingError
from deepgrow3d_app.model import checkpoint
from deepgrow3d_app.model.checkpoint import Checkpoint, lineage
from deepgrow3d_app.training import run as run_training_module
from deepgrow3d_app.training import run_folder
from deepgrow3d_app.training.log import TrainingLog
from deepgrow3d_app.training.plan import Budget, read_plan
from deepgrow3d_app.training.run_folder import RunFolder
from deepgrow3d_app.training.trainer import Trainer


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
    run.plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, validate_every=1000, report_every=3))
    run.train(7)
    assert run.steps_of_log == [3, 6, 7]


def test_the_best_network_is_kept_where_there_are_validation_cases(make_run, plan, many_cases):
    recipe = dataclasses.replace(plan.recipe, validation_clicks=3, validation_structures=1)
    run = make_run("run", dataclasses.replace(plan, recipe=recipe), many_cases, held_out=2)
    run.train(5)
    assert [set(line["validation"]) for line in run.log] == [{"1", "3"}] * 3
    scores = {line["step"]: sum(line["validation"].values()) / 2 for line in run.log}
    assert all(0 <= score <= 1 for score in scores.values())
    best = Checkpoint.load(run.folder.best_file)
    assert scores[int(best.origin["steps"])] == max(scores.values())
    assert run.state["best"] == pytest.approx(max(scores.values()))
    assert json.loads(best.origin["data"])[0]["cases"] == 2


def test_cases_that_are_left_out_are_told_of(make_run, plan, many_cases):
    (many_cases / "c" / "labels.nii.gz").write_bytes(b"no image")
    run = make_run("run", plan, many_cases)
    run.train(1)
    (line,) = run.told
    assert line.startswith("left out: c: ")
    assert json.loads(Checkpoint.load(run.folder.model_file).origin["data"])[0]["cases"] == 3


def test_a_run_starts_from_another_networks_weights_and_says_so(run, make_run, plan):
    run.train(2)
    still = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, learning_rate=1e-12))
    second = make_run("second", still)
    second.train(1, start_from=run.folder.model_file)
    first, then = Checkpoint.load(run.folder.model_file), Checkpoint.load(second.folder.model_file)
    assert lineage(then.origin)[:-1] == [first.origin]
    for name, weight in first.weights.items():
        torch.testing.assert_close(then.weights[name], weight)


def test_a_run_does_not_start_from_what_an_earlier_try_was_to_start_from(run, make_run, plan, many_cases):
    run.train(1)
    second = make_run("second", plan, many_cases.parent / "nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        second.train(1, start_from=run.folder.model_file)
    second.cases = many_cases
    second.train(1)
    assert len(lineage(Checkpoint.load(second.folder.model_file).origin)) == 1


def test_where_cases_are_refused_the_corrected_command_trains(run, make_run, plan, many_cases):
    run.train(1)
    second = make_run("second", plan, many_cases.parent / "nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        second.train(1, start_from=run.folder.model_file)
    second.cases = many_cases
    second.held_out = 40
    with pytest.raises(TrainingError, match="Nothing is left"):
        second.train(1, start_from=run.folder.model_file)
    second.held_out = 0
    second.train(1, start_from=run.folder.model_file)
    assert second.state["step"] == 1


@pytest.mark.parametrize("left", ["state.pt", "model.safetensors"])
def test_a_folder_with_a_run_is_refused_and_left_as_it_is(run, left):
    run.train(1)
    (run.folder.path / ({"state.pt", "model.safetensors"} - {left}).pop()).unlink()
    before = run.files
    with pytest.raises(InvalidRequest, match=r"holds a run. Go on with it by --resume"):
        run.train(1)
    assert run.files == before


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
        assert run.files == {}
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


def test_a_run_that_is_stopped_is_saved_and_goes_on_as_if_nothing_had_been(run, make_run, plan):
    whole = make_run("whole", plan)
    whole.train(6)
    asked = itertools.count()
    run.is_stopped = lambda: next(asked) >= 4
    trainer = run.train(6)
    assert 0 < trainer.step < 6
    assert run.state["step"] == trainer.step
    run.is_stopped = lambda: False
    run.resume(6)
    assert [line["loss"] for line in run.log if line["step"] == 6] == [whole.log[-1]["loss"]]


def test_a_validation_that_is_stopped_is_none(make_run, plan, many_cases):
    recipe = dataclasses.replace(plan.recipe, validation_clicks=3, validation_structures=1, validate_every=1)
    run = make_run("run", dataclasses.replace(plan, recipe=recipe), many_cases, held_out=2)
    asked = itertools.count()
    run.is_stopped = lambda: next(asked) >= 3  # before a step, and then inside of the validation
    run.train(5)
    assert run.log == []  # whoever goes on validates then, and writes the line
    assert not run.folder.best_file.exists()


def test_what_it_starts_from_is_validated_where_that_is_asked_for(make_run, plan, many_cases):
    recipe = dataclasses.replace(plan.recipe, validation_clicks=1, validation_structures=1, validate_every=1000)
    run = make_run("run", dataclasses.replace(plan, recipe=recipe), many_cases, held_out=2)
    run.train(1, validates_first=True)
    assert [(line["step"], set(line["validation"])) for line in run.log] == [(0, {"1"}), (1, {"1"})]


def test_a_run_without_time_for_a_step_leaves_a_log_of_json(run):
    """JSON has no NaN, which is what the mean of no loss is."""
    run.train(1000, minutes=1e-9)
    assert math.isnan(run.reported[-1].loss)
    (line,) = run.folder.log_file.read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["loss"] is None
    run.resume(1000, minutes=1e-9)
    assert run.steps_of_log == [0]


def test_a_gpu_without_enough_memory_is_told(run, monkeypatch):
    def fill(trainer, done):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Trainer, "train_step", fill)
    with pytest.raises(TrainingError, match=r"a batch of 2 patches, at step 0\. .*smaller batches"):
        run.train(2)
    assert run.state["step"] == 0
