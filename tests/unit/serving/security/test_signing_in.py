"""Who signs in, how, and what for, on an application of a few routes."""

import html

import pytest
import requests
from monailabel.config import settings as monailabel_settings

from deepgrow3d_app.errors import InvalidRequest, NotAllowed, ServerFault
from deepgrow3d_app.serving.security.callers import FAILURES_PER_MINUTE
from deepgrow3d_app.serving.security.keycloak import KeycloakDoor
from tests.unit.serving.security.conftest import ELSEWHERE, bearer, client


def test_roles(tmp_path, tokens):
    anywhere = client(tmp_path, address=ELSEWHERE, base_url="http://segment.example", tokens_file=tokens["file"])
    unknown = anywhere.get("/image")
    assert unknown.status_code == 401
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert "Bearer TOKEN" in unknown.json()["detail"]
    for role in ("user", "annotator", "reviewer"):
        assert anywhere.get("/me", headers=bearer(tokens[role])).json() == f"the-{role}"
        refused = anywhere.post("/train", headers=bearer(tokens[role]))
        assert refused.status_code == 403
        assert f"takes the role 'admin', and yours is '{role}'" in refused.json()["detail"]
    assert anywhere.post("/train", headers=bearer(tokens["admin"])).status_code == 200
    assert anywhere.get("/image", headers=bearer("dg3d_wrong")).status_code == 401
    assert anywhere.get("/image", headers={"Authorization": f"Basic {tokens['admin']}"}).status_code == 401


def test_a_person_is_sent_to_sign_in_and_comes_back(tmp_path, tokens):
    browser = client(tmp_path, base_url="https://segment.example", tokens_file=tokens["file"])
    sent = browser.get("/image", headers={"accept": "text/html"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=%2Fimage")
    page = browser.get(sent.headers["location"])
    assert 'name="next" value="/image"' in page.text
    asked = browser.get("/image?study=ct&slice=3", headers={"accept": "text/html"})
    assert 'value="/image?study=ct&amp;slice=3"' in browser.get(asked.headers["location"]).text
    wrong = browser.post("/login", data={"token": "dg3d_wrong", "next": "/image"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = browser.post("/login", data={"token": tokens["user"], "next": "/image"})
    assert (right.status_code, right.headers["location"]) == (303, "/image")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" in cookie
    assert browser.get("/me").json() == "the-user"
    browser.post("/logout")
    assert browser.get("/me").status_code == 401


def test_where_nobody_signs_in_no_token_is_remembered(tmp_path):
    answer = client(tmp_path).post("/login", data={"token": "\U0001f642", "next": "/image"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/image")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path", ["https://evil.example", "//evil.example", "/\\evil.example", '/"><script>', "image", "/a\nb", ""]
)
def test_signing_in_leads_nowhere_else(tmp_path, tokens, path):
    browser = client(tmp_path, tokens_file=tokens["file"])
    assert browser.post("/login", data={"token": tokens["user"], "next": path}).headers["location"] == "/"
    assert "evil" not in browser.get("/login", params={"next": path}).text
    assert "<script" not in browser.get("/login", params={"next": path}).text


def test_3d_slicer_signs_in_with_the_token_as_password(tmp_path, tokens):
    assert client(tmp_path).get("/auth/").status_code == 404, "nobody signs in"
    slicer = client(tmp_path, tokens_file=tokens["file"])
    assert slicer.get("/auth/").json()["enabled"] is True
    given = slicer.post("/auth/token", data={"username": "anna", "password": tokens["annotator"]}).json()
    assert slicer.get("/auth/token/valid", headers=bearer(given["access_token"])).json()["roles"] == ["annotator"]
    assert slicer.post("/auth/token", data={"username": "anna", "password": "guess"}).status_code == 401


def test_whoever_tries_tokens_out_has_to_wait(tmp_path, tokens):
    thief = client(tmp_path, tokens_file=tokens["file"])
    tried = [thief.get("/image", headers=bearer(f"dg3d_{number}")) for number in range(FAILURES_PER_MINUTE + 1)]
    assert [answer.status_code for answer in tried] == [401] * FAILURES_PER_MINUTE + [429]
    assert 1 <= int(tried[-1].headers["retry-after"]) <= 120


def test_whoever_tries_passwords_out_has_to_wait_too(tmp_path, tokens):
    thief = client(tmp_path, tokens_file=tokens["file"])
    for path, form in (("/auth/token", {"password": "guess"}), ("/login", {"token": "guess"})):
        statuses = [thief.post(path, data=form).status_code for _ in range(FAILURES_PER_MINUTE)]
        assert set(statuses) <= {401, 429}
    assert thief.post("/login", data={"token": tokens["user"]}).status_code == 429
    assert thief.get("/me", headers=bearer(tokens["user"])).json() == "the-user", "good tokens are not kept out"


def test_a_realm_that_is_away_is_no_fault_of_whoever_signs_in(tmp_path, monkeypatch):
    def gone(url, timeout):
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", gone)
    monkeypatch.setattr(monailabel_settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(monailabel_settings, "MONAI_LABEL_AUTH_REALM_URI", "https://realm.example/realms/hospital")
    browser = client(tmp_path)
    elsewhere = browser.get("/image", headers=bearer("a.b.c"))
    assert elsewhere.status_code == 502
    for _ in range(FAILURES_PER_MINUTE + 1):
        answer = browser.post("/login", data={"token": "a.b.c"})
        assert (answer.status_code, answer.json()) == (502, elsewhere.json())
    assert "https://realm.example/realms/hospital" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [(NotAllowed("You have none of the roles <a>."), 403), (ServerFault("realm", "it is away"), 502)],
)
def test_a_person_whom_the_realm_does_not_let_in_sees_a_page(tmp_path, monkeypatch, fault, status):
    def refuse(door, token):
        raise fault

    monkeypatch.setattr(monailabel_settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(KeycloakDoor, "identify", refuse)
    browser = client(tmp_path)
    page = browser.post("/login", data={"token": "a.b.c", "next": "/image"}, headers={"accept": "text/html,*/*"})
    assert page.status_code == status
    assert f'<p role="alert">{html.escape(str(fault))}</p>' in page.text
    assert 'value="/image"' in page.text
    assert browser.post("/login", data={"token": "a.b.c"}).json() == {"detail": str(fault)}, "a program"


def test_two_ways_to_sign_in_are_one_too_many(tmp_path, tokens, monkeypatch):
    monkeypatch.setattr(monailabel_settings, "MONAI_LABEL_AUTH_ENABLE", True)
    with pytest.raises(InvalidRequest, match="Choose one way to sign in"):
        client(tmp_path, tokens_file=tokens["file"])
