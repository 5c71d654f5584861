"""Bodies that the JSON parser of the framework takes, and that could not be written as JSON again."""

from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from deepgrow3d_app.serving.faults import answer_faults
from deepgrow3d_app.serving.json_body import JsonBody
from deepgrow3d_app.serving.json_text import MAX_DEPTH
from deepgrow3d_app.serving.routes import activelearning, batch, train
from deepgrow3d_app.serving.security.identity import EVERYBODY


@pytest.fixture
def client():
    """A client of the routes that take such bodies, with nothing behind them: what reached that would be a 500."""
    api = FastAPI()
    answer_faults(api)
    api.state.served = SimpleNamespace(infer_task=lambda model: None)
    api.state.file_workers = None
    for routes in (activelearning, batch, train):
        api.include_router(routes.router)

    @api.middleware("http")
    async def as_everybody(request, call_next):
        request.state.caller = SimpleNamespace(identity=EVERYBODY)
        return await call_next(request)

    @api.post("/echo")
    def echo(body: JsonBody) -> dict[str, object]:
        return body

    return TestClient(api, raise_server_exceptions=False)


def post(client, path, body):
    return client.post(path, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    "path",
    [
        "/activelearning/first",
        "/activelearning/uncertain",
        "/train/",
        "/train/deepgrow3d",
        "/batch/infer/",
        "/batch/infer/deepgrow3d",
    ],
)
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (rb'{"client_id": "\ud800"}', r"\\ud800"),
        (b'{"client_id": "\xed\xa0\x80"}', r"\ud800"),
        (b'{"client_id": NaN}', "holds NaN"),
        (b'{"client_id": 1e999}', "1e999"),
        (b'{"client_id": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", f"deeper than {MAX_DEPTH} levels"),
    ],
)
def test_what_could_not_be_written_again_is_refused_before_anything_is_done(client, path, body, named):
    answer = post(client, path, body)
    assert answer.status_code == 400
    assert "'body'" in answer.json()["detail"]
    assert named in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"[1]", b'"first"', b"3", b"{"])
def test_what_is_no_object_is_refused(client, body):
    assert post(client, "/echo", body).status_code == 422


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        (b"", {}),
        (b"null", {}),
        (b"{}", {}),
        ('{"client_id": "Zoë", "n": [1, 2.5, null]}'.encode(), {"client_id": "Zoë", "n": [1, 2.5, None]}),
        ('{"client_id": "Zoë"}'.encode("utf-16"), {"client_id": "Zoë"}),
    ],
)
def test_an_object_is_taken_as_it_was_sent(client, body, taken):
    assert post(client, "/echo", body).json() == taken


def test_the_description_says_that_an_object_may_be_sent(client):
    described = client.get("/openapi.json").json()["paths"]["/activelearning/{strategy}"]["post"]["requestBody"]
    (kinds,) = described["content"]["application/json"]["schema"]["anyOf"][:1]
    assert kinds["type"] == "object"
    assert not described.get("required")
