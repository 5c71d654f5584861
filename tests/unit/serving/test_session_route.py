"""What may be sent to open a session, on an application with no other route."""

import resource
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from deepgrow3d_app.serving.faults import answer_faults
from deepgrow3d_app.serving.routes import session
from deepgrow3d_app.serving.security.callers import Caller
from deepgrow3d_app.serving.security.identity import EVERYBODY
from deepgrow3d_app.serving.workers import Workers

MORE_THAN_STARLETTE_TAKES = 1001


class Sessions:
    """Remembers what was sent."""

    def __init__(self):
        self.received = []

    def add(self, uploads, *, expiry_s, uncompress):
        self.received = [(upload.name, upload.content.read(9)) for upload in uploads]
        return SimpleNamespace(session_id="the-new-one", to_json=dict)


@pytest.fixture
def sessions():
    return Sessions()


@pytest.fixture
def client(sessions):
    api = FastAPI()
    api.state.served = SimpleNamespace(viewer_sessions=lambda: sessions)
    api.state.file_workers = Workers(1, 1)
    answer_faults(api)
    api.include_router(session.router)

    @api.middleware("http")
    async def everybody(request, call_next):
        request.state.caller = Caller(EVERYBODY, None, "")
        return await call_next(request)

    return TestClient(api, raise_server_exceptions=False)


def series(length, padding=b""):
    return [("files", (f"{number}.dcm", b"%09d" % number + padding)) for number in range(length)]


def test_a_series_may_be_long(client, sessions):
    answer = client.put("/session/", files=series(MORE_THAN_STARLETTE_TAKES))
    assert answer.status_code == 200, answer.text
    assert sessions.received == [(f"{number}.dcm", b"%09d" % number) for number in range(MORE_THAN_STARLETTE_TAKES)]


def test_what_is_longer_still_is_told_of_the_bound_and_of_archives(client, sessions, monkeypatch):
    monkeypatch.setattr(session, "MAX_FILES", MORE_THAN_STARLETTE_TAKES)
    assert client.put("/session/", files=series(MORE_THAN_STARLETTE_TAKES)).status_code == 200
    sessions.received = []
    answer = client.put("/session/", files=series(MORE_THAN_STARLETTE_TAKES + 1))
    assert answer.status_code == 400
    assert answer.json() == {
        "detail": "The form holds more than the limit of 1001 files. "
        "Send the files of one series, as one zip archive with uncompress=true."
    }
    assert sessions.received == []


def test_more_large_files_than_the_server_may_open_are_better_sent_as_an_archive(client, sessions):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = series(120, padding=bytes(1 << 20))  # each of them becomes an open file
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        answer = client.put("/session/", files=files)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answer.status_code == 400
    assert "one zip archive with uncompress=true" in answer.json()["detail"]
    assert sessions.received == []


def test_a_form_that_is_none_is_refused_as_everywhere(client):
    answer = client.put("/session/", content=b"x", headers={"content-type": "multipart/form-data"})
    assert answer.status_code == 400
    assert "zip" not in answer.json()["detail"]
    assert client.put("/session/").status_code == 422
