import dataclasses
import sys

import pytest
import torch

from deepgrow3d_app.errors import InvalidRequest, TrainingError
from deepgrow3d_app.model.checkpoint import Checkpoint, lineage
from deepgrow3d_app.training import run as run_training_module
from deepgrow3d_app.training import run_folder
from deepgrow3d_app.training.plan import Budget, read_plan
from deepgrow3d_app.training.validation import Validation


def test_a_resumed_run_learns_what_an_unbroken_one_learns(run, make_run):
    whole = make_run("whole")
    expected = whole.train(8)
    run.killed_at = 4  # between two saves
    with pytest.raises(run.Killed):
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


def test_a_run_that_was_killed_before_its_first_save_starts_at_the_first_step(run, plan):
    run.folder.path.mkdir()
    run.folder.begin(plan)
    assert run.folder.read_state() is None
    assert run.resume(2).step == 2


def test_a_finished_run_goes_on_with_a_larger_budget_and_not_with_the_same(run):
    run.train(2)
    lines = run.folder.log_file.read_text()
    assert run.resume(2).step == 2
    assert run.folder.log_file.read_text() == lines
    assert run.resume(3).step == 3
    assert read_plan(str(run.folder.plan_file)).budget == Budget(steps=3)


def test_another_recipe_is_refused_and_nothing_changes(run, plan):
    run.train(2)
    before = run.files
    run.plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, max_clicks=7))
    with pytest.raises(InvalidRequest, match="another plan: max_clicks is 7 and not 4"):
        run.train(4, resumes=True)
    assert run.files == before


def test_a_network_whose_state_is_gone_is_not_trained_over(run):
    run.train(2)
    run.folder.state_file.unlink()
    before = run.files
    with pytest.raises(TrainingError, match=r"no '.*state.pt' to go on from. .*still holds the network"):
        run.resume(2)
    assert run.files == before


def test_a_run_that_was_killed_before_its_first_save_knows_what_it_started_from(run, make_run, plan, monkeypatch):
    def kill(*arguments, **options):
        raise run.Killed

    run.train(2)
    still = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, learning_rate=1e-12))
    second = make_run("second", still)
    with monkeypatch.context() as patched:
        patched.setattr(run_training_module, "load_group", kill)
        with pytest.raises(run.Killed):
            second.train(1, start_from=run.folder.model_file)
    second.resume(1)
    first, then = Checkpoint.load(run.folder.model_file), Checkpoint.load(second.folder.model_file)
    assert lineage(then.origin)[:-1] == [first.origin]
    for name, weight in first.weights.items():
        torch.testing.assert_close(then.weights[name], weight)


def test_a_torn_line_and_lines_after_the_saved_state_are_dropped(run):
    run.train(4)
    lines = run.folder.log_file.read_text()
    run.folder.log_file.write_text(lines + '{"step": 6, "loss": "of a life before"}\n{"step": 8, "lo')
    run.resume(8)
    assert run.steps_of_log == [2, 4, 6, 8]
    assert run.folder.log_file.read_text().startswith(lines)
    assert all(isinstance(line["loss"], float) for line in run.log)


def test_time_counts_from_the_very_start(run):
    run.train(1)
    run.folder.write_state({**run.state, "elapsed_s": 3600.0})
    run.resume(2)
    assert run.log[-1]["elapsed_s"] >= 3600.0
    assert run.state["elapsed_s"] >= 3600.0
    assert run.resume(100_000, minutes=60).step == 2  # the hour is over


def test_the_best_validation_so_far_is_remembered(make_run, plan, many_cases):
    recipe = dataclasses.replace(plan.recipe, validation_clicks=1, validation_structures=1)
    run = make_run("run", dataclasses.replace(plan, recipe=recipe), many_cases, held_out=1)
    run.train(1)
    state = run.state
    run.folder.write_state({**state, "best": 2.0})  # which nothing exceeds
    before = run.folder.best_file.read_bytes()
    run.resume(3)
    assert run.state["best"] == 2.0
    assert run.folder.best_file.read_bytes() == before


def test_the_best_network_of_steps_that_a_kill_took_back_is_kept(make_run, plan, many_cases, monkeypatch):
    """By the clock, the steps that follow are others: none of them need be as good again."""
    recipe = dataclasses.replace(plan.recipe, validation_clicks=1, validation_structures=1, validate_every=4)
    run = make_run("run", dataclasses.replace(plan, recipe=recipe), many_cases, held_out=1)
    with monkeypatch.context() as patched:
        patched.setattr(Validation, "score", lambda *_: {1: 0.75})
        run.killed_at = 4  # once it is validated; saved at step 3
        with pytest.raises(run.Killed):
            run.train(8)
    assert run.state["step"] == 3
    assert run.state["best"] < 0.75
    before = run.folder.best_file.read_bytes()
    run.killed_at = -1
    monkeypatch.setattr(Validation, "score", lambda *_: {1: 0.5})
    run.resume(8)
    assert run.folder.best_file.read_bytes() == before
    assert run.state["best"] == 0.75


def test_other_cases_are_refused_and_nothing_changes(run, many_cases):
    run.train(2)
    before = run.files
    run.cases = many_cases
    with pytest.raises(TrainingError, match="Name the same folders in the same order, with the same --held-out"):
        run.resume(2)
    assert run.files == before


def test_without_a_run_it_is_refused(run):
    with pytest.raises(InvalidRequest, match=r"no run in '.*run' to resume. Leave --resume out"):
        run.train(1, resumes=True)
    assert run.files == {}


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no state"])
def test_a_damaged_state_is_refused_and_the_network_is_kept(run, damage):
    run.train(1)
    run.folder.state_file.write_bytes(damage(run.folder.state_file.read_bytes()))
    before = run.files
    with pytest.raises(
        TrainingError, match=r"state.pt' is damaged. .*'model.safetensors' still holds the network"
    ) as caught:
        run.resume(1)
    assert len(str(caught.value).splitlines()) == 1
    assert run.files == before
    Checkpoint.load(run.folder.model_file).network()


def test_a_state_of_another_version_is_refused(run, monkeypatch):
    run.train(1)
    monkeypatch.setattr(run_folder, "STATE_VERSION", run_folder.STATE_VERSION + 1)
    with pytest.raises(TrainingError, match="another version"):
        run.resume(2)


@pytest.fixture
def make_validated_run(make_run, plan, many_cases):
    """``make_validated_run("name")``: one with two cases for validation, at every other step."""
    recipe = dataclasses.replace(plan.recipe, validation_clicks=1, validation_structures=2)
    return lambda name: make_run(name, dataclasses.replace(plan, recipe=recipe), many_cases, held_out=2)


def validations(run):
    return [(line["step"], line["validation"], line["dice"]) for line in run.log]


def test_a_run_that_was_stopped_in_a_validation_makes_up_for_it(make_validated_run):
    whole, run = make_validated_run("whole"), make_validated_run("run")
    whole.train(6, validates_first=True)
    asked = {"in a validation": 0}

    def is_stopped():
        """At the second click of the validation after two steps."""
        frame = sys._getframe(1).f_code.co_name
        asked["in a validation"] += frame == "dice_of"
        return asked["in a validation"] > 5

    run.is_stopped = is_stopped
    run.train(6, validates_first=True)
    assert run.state["step"] == 2
    assert [step for step, *_ in validations(run)] == [0]
    run.is_stopped = lambda: False
    run.resume(6, validates_first=True)
    assert validations(run) == validations(whole)
    assert [line["step"] for line in run.log] == [0, 2, 4, 6]
    assert run.state["best"] == whole.state["best"]


def test_a_run_that_was_killed_in_its_first_validation_makes_it_again(make_validated_run, monkeypatch):
    run = make_validated_run("run")

    def kill(*arguments):
        raise run.Killed

    with monkeypatch.context() as patched:
        patched.setattr(Validation, "score", kill)
        with pytest.raises(run.Killed):
            run.train(1, validates_first=True)
    assert run.state["step"] == 0
    run.resume(1, validates_first=True)
    assert run.steps_of_log == [0, 1]
    run.resume(1, validates_first=True)
    assert run.steps_of_log == [0, 1]


def test_a_run_that_was_killed_while_it_began_is_no_run_and_can_be_begun_again(run, make_run, plan, monkeypatch):
    """Its network is there, or is not yet: to go on with it could be to start from random weights."""
    run.train(2)
    second = make_run("second", plan)

    def kill(path, content):
        raise second.Killed

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "replace_file", kill)
        with pytest.raises(second.Killed):
            second.train(1, start_from=run.folder.model_file)
    assert not second.folder.has_begun
    with pytest.raises(InvalidRequest, match="no run in"):
        second.train(1, start_from=run.folder.model_file, resumes=True)
    second.train(1, start_from=run.folder.model_file)
    assert second.folder.has_begun
    assert len(lineage(Checkpoint.load(second.folder.model_file).origin)) == 2
