"""Whose clicks replace whose, at ``POST /infer``."""

import json
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from deepgrow3d_app.errors import Busy
from deepgrow3d_app.serving.faults import answer_faults
from deepgrow3d_app.serving.metrics import Metrics
from deepgrow3d_app.serving.routes import infer
from deepgrow3d_app.serving.security.identity import Identity, Role


class Queue:
    """Notes what is asked, and is full."""

    def __init__(self):
        self.asked = []

    async def run(self, function, request, is_gone):
        del function, is_gone
        self.asked.append(request)
        raise Busy("Try again.")


@pytest.fixture
def ask():
    """``ask(name, clicks, client_id)``: how the queue sees that request of ``name``."""
    api = FastAPI()
    answer_faults(api)
    queue = api.state.click_queue = Queue()
    api.state.metrics = Metrics()
    api.state.served = SimpleNamespace(infer_task=lambda model: None)
    api.include_router(infer.router)

    @api.middleware("http")
    async def sign_in(request, call_next):
        request.state.caller = SimpleNamespace(identity=Identity(request.headers["x-name"], Role.USER))
        return await call_next(request)

    client = TestClient(api)

    def ask(name, clicks, client_id):
        params = {"foreground": clicks, "background": [], "client_id": client_id, "annotator": "anna"}
        data = {"params": json.dumps(params)}
        assert client.post("/infer/deepgrow3d?image=ct", data=data, headers={"x-name": name}).status_code == 429
        return queue.asked[-1]

    return ask


@pytest.mark.parametrize("name", ["anna", ""])
def test_a_further_click_of_one_annotator_replaces_the_one_that_waits(ask, name):
    assert ask(name, [[1, 2, 3], [3, 2, 1]], "3D Slicer").replaces(ask(name, [[1, 2, 3]], "3D Slicer"))
    assert not ask(name, [[1, 2, 3], [3, 2, 1]], "OHIF").replaces(ask(name, [[1, 2, 3]], "3D Slicer"))


def test_a_click_of_somebody_else_replaces_none_whatever_his_viewer_calls_itself(ask):
    waiting = ask("anna", [[1, 2, 3]], "3D Slicer")
    assert not ask("bert", [[1, 2, 3], [3, 2, 1]], "3D Slicer").replaces(waiting)
    assert not ask("", [[1, 2, 3], [3, 2, 1]], "3D Slicer").replaces(waiting)
