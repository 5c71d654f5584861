"""A training by the server that is stopped or killed is gone on with, and leaves clicks the machine meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.integration.launcher import Launcher, Server
from tests.integration.retraining import CENTRE, IMAGES, ended, serve, server, studies, train, trainers_of, until

__all__ = ["server", "studies"]

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_training_stops_at_once_and_is_gone_on_with(server: Server) -> None:
    train(server, max_epochs=1, steps_per_epoch=60, force=True)
    until(server, lambda state: state["step"] > 0)
    asked = time.monotonic()
    stopped = server.request("DELETE", "/train/").json()
    assert time.monotonic() - asked < 6  # a machine may be busy; the process itself is given 4.5 s
    assert stopped["status"] == "STOPPED"
    assert 0 < stopped["step"] < 60
    assert trainers_of(server.folder) == []
    response = server.request("POST", "/train/deepgrow3d", json={"resume": True})
    assert response.ok, response.text
    done = ended(server)
    assert (done["id"], done["status"], done["step"]) == ("0001", "DONE", 60), done
    again = server.request("POST", "/train/deepgrow3d", json={"resume": "0001"})
    assert again.status_code == 400
    assert "nothing to go on with" in again.json()["detail"]


def test_a_training_ends_with_its_server_and_is_gone_on_with_by_the_next(
    server: Server, launcher: Launcher, studies: Path
) -> None:
    train(server, max_epochs=1, steps_per_epoch=40, force=True)
    until(server, lambda state: state["step"] > 0)
    assert len(trainers_of(server.folder)) == 1
    os.kill(server.process.pid, 9)
    server.process.wait()
    deadline = time.monotonic() + 10
    while trainers_of(server.folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = serve(launcher, studies)
    state = second.json("/train/")
    assert state["status"] == "INTERRUPTED"
    assert "It can be resumed" in state["message"]
    assert second.request("POST", "/train/deepgrow3d", json={"resume": True}).ok
    done = ended(second)
    assert (done["status"], done["step"], done["version"]) == ("DONE", 40, 2), done


def test_a_training_takes_only_what_clicks_leave(server: Server) -> None:
    train(server, max_epochs=1, steps_per_epoch=40)
    until(server, lambda state: state["step"] > 0)
    (trainer,) = trainers_of(server.folder)
    assert os.sched_getscheduler(trainer) == os.SCHED_IDLE
    # Its session's share as well: else a click waits for half of each core, fifteen times as long.
    shared_by_session = Path(f"/proc/{trainer}/autogroup")
    if shared_by_session.exists():
        assert shared_by_session.read_text().split()[-1] == "19"
    server.request("DELETE", "/train/")


def test_a_killed_trainer_is_told_and_is_gone_on_with(server: Server) -> None:
    train(server, max_epochs=1, steps_per_epoch=40, force=True)
    until(server, lambda state: state["step"] > 0)
    (trainer,) = trainers_of(server.folder)
    os.kill(trainer, 9)
    assert ended(server)["status"] == "ERROR"
    server.mask(IMAGES[0], [CENTRE])
    assert server.request("POST", "/train/deepgrow3d", json={"resume": True}).ok
    done = ended(server)
    assert (done["status"], done["step"]) == ("DONE", 40), done


def test_an_orderly_end_of_the_server_saves_the_training(server: Server, launcher: Launcher, studies: Path) -> None:
    train(server, max_epochs=1, steps_per_epoch=60, force=True)
    until(server, lambda state: state["step"] > 0)
    assert server.stop() in (0, -15)
    assert trainers_of(server.folder) == []
    state = serve(launcher, studies).json("/train/")
    assert state["status"] == "INTERRUPTED"
    assert state["message"].startswith("The server was stopped")
