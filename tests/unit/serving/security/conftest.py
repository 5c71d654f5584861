"""A secured application of a few routes, and tokens for it."""

import json

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from deepgrow3d_app.serving.access import ADMIN, USER, SignedIn
from deepgrow3d_app.serving.faults import answer_faults
from deepgrow3d_app.serving.routes import sign_in
from deepgrow3d_app.serving.security.around import secure
from deepgrow3d_app.serving.security.audit import tell_subject
from deepgrow3d_app.serving.security.identity import Role
from deepgrow3d_app.serving.security.tokens import TokenFile
from deepgrow3d_app.serving.settings import ServingSettings

HERE = "http://127.0.0.1:8000"
ELSEWHERE = ("10.0.0.7", 50000)


@pytest.fixture
def tokens(tmp_path):
    file = TokenFile(tmp_path / "tokens.txt")
    return {role.title: file.add(f"the-{role.title}", role) for role in Role} | {"file": file.path}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def client(tmp_path, *, address=("127.0.0.1", 50000), base_url=HERE, **settings):
    """A client of a secured application; its audit log lies in ``tmp_path / "audit"``."""
    api = FastAPI()
    api.state.door = secure(api, ServingSettings(**settings), tmp_path / "audit")
    answer_faults(api)
    api.include_router(sign_in.router)

    @api.get("/image", dependencies=USER)
    def image(image: str = "") -> dict[str, str]:
        return {"image": image}

    @api.put("/session", dependencies=USER)
    def session() -> None:
        tell_subject("session_id", "the-new-one")

    @api.post("/train", dependencies=ADMIN)
    def train() -> dict[str, str]:
        return {}

    @api.get("/health/live")
    def live() -> None:
        pass

    @api.get("/proxy/dicom/{service}/{path:path}")
    def fetch(service: str, path: str) -> str:
        return service + path

    @api.get("/broken")
    def broken() -> None:
        raise ValueError("secret")

    @api.get("/me")
    def me(caller: SignedIn) -> str:
        return caller.name

    return TestClient(api, base_url=base_url, client=address, follow_redirects=False)


def audit(tmp_path):
    return [json.loads(line) for file in (tmp_path / "audit").glob("*.jsonl") for line in file.read_text().splitlines()]
