"""Trainings that overlap with other trainings, other servers and other networks; their process is a stand-in."""

import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deepgrow3d_app.errors import Busy, NotFound, TrainingError
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.retraining.gate import Decision, Scores
from deepgrow3d_app.retraining.job import JobFolder
from deepgrow3d_app.retraining.order import RetrainingOrder
from deepgrow3d_app.retraining.versions import VersionRecord, Versions
from deepgrow3d_app.serving.training import attendant
from deepgrow3d_app.serving.training.trainings import TrainingPlaces, Trainings


def write_network(file, value):
    Checkpoint(ModelSpec(), {"w": torch.full((3,), float(value))}, {"command": str(value)}).save(file)


class Process:
    """Works until it is told to stop, or what it is to leave."""

    made: list[Any] = []  # noqa: RUF012 - emptied before each test

    def __init__(self, job):
        self.job = job
        self.ended = threading.Event()
        self.made.append(self)

    def stop(self):
        self.ended.set()

    def wait(self):
        assert self.ended.wait(30)
        return 0

    def leave(self, value):
        """A better network."""
        write_network(self.job.candidate_file, value)
        nothing = Scores(site=None, reference=None)
        decision = Decision(is_published=True, reason="better", parent=nothing, candidate=nothing)
        self.job.write_state(self.job.state().model_copy(update={"stage": "publishing", "decision": decision}))
        self.ended.set()


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    Process.made.clear()
    monkeypatch.setattr(attendant, "JobProcess", Process)
    yield
    for process in Process.made:
        process.stop()


@pytest.fixture
def model(tmp_path):
    write_network(tmp_path / "net.safetensors", 1)
    versions = Versions(tmp_path / "net.safetensors")
    return SimpleNamespace(path=versions.served, versions=versions, publish=versions.publish)


@pytest.fixture
def listed():
    """How often the cases were listed."""
    return []


@pytest.fixture
def server(tmp_path, model, listed):
    """Makes a server on the same studies."""
    places = TrainingPlaces(tmp_path / "training", (), None, ())
    return lambda: Trainings(places, model, lambda: listed.append(1) or [])


def served(model):
    return Checkpoint.load(model.path).weights["w"][0].item()


def started(one, order=None):
    """A training whose process works."""
    count = len(Process.made)
    state = one.start(order or RetrainingOrder(), "anna")
    return state, process_after(count)


def process_after(count):
    for _ in range(3000):
        if len(Process.made) > count:
            return Process.made[count]
        threading.Event().wait(0.01)
    raise AssertionError("No process was started.")


def finished(one):
    one._work.thread.join(30)
    return one.latest()


def test_a_better_network_is_published(server, model):
    one = server()
    _, process = started(one)
    process.leave(2)
    assert finished(one).status == "DONE"
    assert served(model) == 2


@pytest.mark.parametrize("change", ["upload", "rollback"])
def test_a_network_that_was_put_in_place_meanwhile_stays(server, model, tmp_path, change):
    write_network(tmp_path / "other.safetensors", 50)
    if change == "rollback":
        model.publish(tmp_path / "other.safetensors", VersionRecord(made_by="upload"))
    one = server()
    _, process = started(one)
    if change == "rollback":
        model.versions.roll_back()
    else:
        model.publish(tmp_path / "other.safetensors", VersionRecord(made_by="upload"))
    expected = served(model)
    process.leave(2)
    state = finished(one)
    assert (state.status, state.version) == ("DONE", None)
    assert state.message.startswith("Not published. Another network was put in the place")
    assert served(model) == expected


def test_what_was_rolled_back_is_not_published_again_after_a_kill(server, model, tmp_path):
    one = server()
    _, process = started(one)
    process.leave(2)
    job = one._work.job
    assert finished(one).status == "DONE"
    model.versions.roll_back()
    job.write_state(job.state().model_copy(update={"status": "RUNNING", "stage": "publishing", "version": None}))
    other = server()
    other.recover()
    assert finished(other).message.startswith("Not published.")
    assert served(model) == 1


def test_a_publication_that_was_cut_off_is_finished(server, model):
    one = server()
    _, process = started(one)
    process.leave(2)
    job = one._work.job
    finished(one)
    job.write_state(job.state().model_copy(update={"status": "RUNNING", "stage": "publishing", "version": None}))
    other = server()
    other.recover()
    assert (finished(other).status, other.latest().version) == ("DONE", 2)
    assert served(model) == 2


def test_a_publication_that_is_cut_off_before_it_is_served_is_finished(server, model, monkeypatch):
    one = server()
    _, process = started(one)

    def full(self, number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Versions, "_serve", full)
        process.leave(2)
        assert finished(one).status == "ERROR"
    assert served(model) == 1
    one.resume(None)
    assert (finished(one).status, one.latest().version) == ("DONE", 2)
    assert served(model) == 2


def test_an_earlier_training_that_is_gone_on_with_is_the_one_that_runs(server):
    one = server()
    started(one)
    one.stop()
    _, second = started(one)
    second.leave(2)
    finished(one)
    assert one.resume("0001").id == "0001"
    third = process_after(2)
    assert one.running().id == one.latest().id == "0001"
    with pytest.raises(Busy, match="0001 is running"):
        one.start(RetrainingOrder(), "bert")
    assert one.stop().id == "0001"
    assert third.ended.is_set()
    with pytest.raises(NotFound):
        one.stop()


def test_a_training_of_another_server_is_stopped_there(server):
    one, other = server(), server()
    _, process = started(one)
    there = r"Training 0001 is running in another server on these studies .* stop it there \(DELETE /train/ at that"
    with pytest.raises(Busy, match=there):
        other.start(RetrainingOrder(), "bert")
    with pytest.raises(Busy, match=there):
        other.stop()
    assert not process.ended.is_set()
    with pytest.raises(Busy, match=r"Training 0001 is running \(.*\)\. .* stop it \(DELETE /train/\)\."):
        one.start(RetrainingOrder(), "anna")
    assert one.stop().status == "STOPPED"
    for stopped in (one, other):
        with pytest.raises(NotFound, match="No training is running"):
            stopped.stop()


@pytest.mark.parametrize("file", ["state_file", "setup_file"])
def test_a_damaged_record_takes_nothing_from_the_other_trainings(server, caplog, file):
    one = server()
    started(one)
    one.stop()
    damaged = getattr(one._work.job, file)
    damaged.write_bytes(left := damaged.read_bytes()[:20])
    with caplog.at_level(logging.WARNING):
        one.recover()
        assert [one.all(), one.latest(), one.running()] == [[], None, None]
    assert [message for message in caplog.messages if damaged.name in message] == [
        f"Training 0001 is passed over: '{damaged}' is damaged. Remove the folder of that training."
    ], "once, and not at every look"
    with pytest.raises(NotFound, match="no training to go on with"):
        one.resume(None)
    with pytest.raises(TrainingError, match=rf"{damaged.name}' is damaged\. Remove the folder"):
        one.resume("0001")
    assert started(one)[0].id == "0002", "the number stays taken"
    one.stop()
    assert [state.id for state in one.all()] == ["0002"]
    assert one.resume(None).id == "0002"
    one.stop()
    assert damaged.read_bytes() == left


def test_a_training_whose_record_is_damaged_while_it_runs_ends_in_order(server, caplog):
    one = server()
    _, process = started(one)
    one._work.job.state_file.write_bytes(b"{")
    process.stop()
    one._work.thread.join(30)
    assert "Training 0001: its end cannot be written" in caplog.text
    assert one.latest() is None
    _, second = started(one)
    second.leave(2)
    assert (finished(one).id, finished(one).status) == ("0002", "DONE")


def test_a_training_that_begins_runs_for_whoever_looks(server, monkeypatch):
    """Before anybody can see that it runs, this server attends to it."""
    one, other = server(), server()
    seen = []
    write_state = JobFolder.write_state

    def looked_at(job, state):
        write_state(job, state)
        if state.status == "RUNNING":
            seen.append(other.latest().status)

    monkeypatch.setattr(JobFolder, "write_state", looked_at)
    started(one)
    one.stop()
    one.resume(None)
    process_after(1)
    assert len(seen) >= 2
    assert set(seen) == {"RUNNING"}


def test_of_two_servers_that_begin_at_once_one_trains(server):
    outcomes = []
    barrier = threading.Barrier(2)

    def begin(one):
        barrier.wait(30)
        try:
            outcomes.append(one.start(RetrainingOrder(), "anna").status)
        except Busy:
            outcomes.append("BUSY")

    servers = [server(), server()]
    threads = [threading.Thread(target=begin, args=(one,)) for one in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["BUSY", "RUNNING"]
    assert [state.status for state in servers[0].all()] == ["RUNNING"]


def test_a_start_that_was_killed_takes_nothing_from_the_next(server):
    one = server()
    (one._root() / "0001").mkdir(parents=True)
    assert started(one)[0].id == "0002"
    one.stop()


def test_before_anything_was_learnt_the_labels_are_those_of_now(server, listed):
    one = server()
    started(one)
    one.stop()
    one.resume(None)
    process_after(1)
    assert len(listed) == 2
    one._work.job.run.path.mkdir(parents=True, exist_ok=True)
    one._work.job.run.state_file.write_bytes(b"state")
    one.stop()
    one.resume(None)
    process_after(2)
    assert len(listed) == 2
    one.stop()
