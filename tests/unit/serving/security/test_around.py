"""What a request passes before its route, on an application of a few routes."""

import html
import json
import logging
import shutil

import pytest
import requests
from fastapi import FastAPI
from monailabel.config import settings as monailabel_settings
from pydantic import AnyHttpUrl
from starlette.testclient import TestClient

from deepgrow3d_app.errors import InvalidRequest, NotAllowed, ServerFault
from deepgrow3d_app.serving.access import ADMIN, USER, SignedIn
from deepgrow3d_app.serving.faults import answer_faults
from deepgrow3d_app.serving.routes import sign_in
from deepgrow3d_app.serving.security.around import secure
from deepgrow3d_app.serving.security.audit import AuditLog, hash_of, tell_subject
from deepgrow3d_app.serving.security.callers import FAILURES_PER_MINUTE, SIGN_IN, WHO_CALLS
from deepgrow3d_app.serving.security.identity import Role
from deepgrow3d_app.serving.security.keycloak import KeycloakDoor
from deepgrow3d_app.serving.security.origins import is_loopback
from deepgrow3d_app.serving.security.tokens import TokenFile
from deepgrow3d_app.serving.security.upload_limit import OPEN_BYTES
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


def test_this_machine_needs_no_token(tmp_path):
    here = client(tmp_path)
    assert here.get("/image").status_code == here.post("/train").status_code == 200


def test_another_machine_gets_no_answer_unless_that_is_asked_for(tmp_path):
    refused = client(tmp_path, address=ELSEWHERE).get("/image")
    assert refused.status_code == 403
    assert "answers only the machine that it runs on" in refused.json()["detail"]
    assert client(tmp_path, address=ELSEWHERE, insecure=True).get("/image").status_code == 200
    claimed = client(tmp_path, address=ELSEWHERE, base_url="https://127.0.0.1:8000").get("/image")
    assert claimed.status_code == 403, "that it is TLS is what a proxy says, and anybody through it"


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", True),
        ("unknown", False),
    ]
    + [(address, False) for address in ("10.0.0.7", "192.168.1.2", "::ffff:10.0.0.7", "fe80::1%eth0", "2001:db8::1")],
)
def test_which_addresses_are_of_this_machine(address, is_here):
    assert is_loopback(address) is is_here


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "[", "[x]", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(tmp_path, name):
    refused = client(tmp_path).get("/image", headers={"host": name})
    assert refused.status_code == 403
    assert "is not called" in refused.json()["detail"]


@pytest.mark.parametrize("name", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST", "workstation:80"])
def test_names_of_this_machine_are_not(tmp_path, name):
    assert client(tmp_path, hosts=("Workstation",)).get("/image", headers={"host": name}).status_code == 200


def test_pages_of_others_change_nothing(tmp_path, monkeypatch):
    here = client(tmp_path)
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8000"):
        refused = here.post("/train", headers={"origin": origin})
        assert refused.status_code == 403, origin
        assert "may not change anything here" in refused.json()["detail"]
    assert here.post("/train", headers={"origin": HERE}).status_code == 200
    answer = here.get("/image", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    monkeypatch.setattr(monailabel_settings, "MONAI_LABEL_CORS_ORIGINS", [AnyHttpUrl("https://viewer.example")])
    named = client(tmp_path).post("/train", headers={"origin": "https://viewer.example"})
    assert named.status_code == 200
    assert named.headers["access-control-allow-origin"] == "https://viewer.example"


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


def test_the_audit_log_goes_on_where_it_was_cleared_away(tmp_path):
    log = AuditLog(tmp_path / "kept" / "audit")
    shutil.rmtree(tmp_path / "kept" / "audit")
    log.write({"route": "/image"})
    assert len(list((tmp_path / "kept" / "audit").iterdir())) == 1
    shutil.rmtree(tmp_path / "kept")
    log.write({"route": "/image"})
    assert not (tmp_path / "kept").exists(), "where the disk is gone, nothing takes its place"


def test_nothing_is_taken_in_from_somebody_unknown(tmp_path, tokens):
    sent = []

    def content():
        for _ in range(3):
            sent.append(b"x" * 1000)
            yield sent[-1]

    answer = client(tmp_path, tokens_file=tokens["file"]).post("/nothing", content=content())
    assert answer.status_code == 401
    assert "asks who calls" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/train/login", "/infer/auth/token", "/login/", "//login"])
def test_only_the_paths_themselves_are_open_to_somebody_unknown(tmp_path, tokens, path):
    known = client(tmp_path, tokens_file=tokens["file"])
    answer = known.post(path, content=bytes(10))
    assert answer.status_code == 401
    assert answer.json()["detail"] == WHO_CALLS


@pytest.mark.parametrize("path", SIGN_IN)
def test_of_somebody_unknown_no_more_is_taken_in_than_a_token(tmp_path, tokens, path):
    known = client(tmp_path, tokens_file=tokens["file"])
    files = {"token": ("token.txt", bytes(OPEN_BYTES))}
    assert known.post(path, files=files).status_code == (413 if path != "/logout" else 303)


def test_what_nobody_foresaw_is_an_answer_with_a_name(tmp_path, caplog):
    answer = client(tmp_path).get("/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "ValueError: secret" in caplog.text
    (line,) = audit(tmp_path)
    assert (line["status"], line["request"]) == (500, answer.headers["x-request-id"])


def test_each_caller_has_a_rate_of_his_own(tmp_path, tokens):
    api = client(tmp_path, tokens_file=tokens["file"], requests_per_minute=3)
    statuses = [api.get("/image", headers=bearer(tokens["user"])).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert api.get("/image", headers=bearer(tokens["admin"])).status_code == 200


def test_every_answer_says_how_browsers_should_treat_it(tmp_path):
    here = client(tmp_path)
    for answer in (here.get("/image"), here.get("/nothing"), here.get("/image", headers={"host": "evil.example"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "strict-transport-security" not in answer.headers
    page = here.get("/login")
    assert "style-src" in page.headers["content-security-policy"], "a page's own policy stays"
    secure_answer = client(tmp_path, base_url="https://127.0.0.1:8000").get("/image")
    assert "strict-transport-security" in secure_answer.headers


def test_requests_have_names(tmp_path):
    here = client(tmp_path)
    first, second = (here.get("/image").headers["x-request-id"] for _ in range(2))
    assert first != second
    assert here.get("/image", headers={"x-request-id": "from-a-proxy"}).headers["x-request-id"] == "from-a-proxy"
    for forged in ("short", "x" * 65, "a b c d e f g h", "<script>alert</script>"):
        assert here.get("/image", headers={"x-request-id": forged}).headers["x-request-id"] != forged


def test_the_audit_log_tells_who_did_what_and_no_patient_s_name(tmp_path, tokens):
    api = client(tmp_path, tokens_file=tokens["file"])
    answered = api.get("/image", params={"image": "Doe^Jane"}, headers=bearer(tokens["user"]))
    api.post("/train", headers=bearer(tokens["user"]))
    api.get("/image", params={"image": "Doe^Jane"})
    api.get("/health/live")
    lines = audit(tmp_path)
    assert [(line["who"], line["method"], line["route"], line["status"]) for line in lines] == [
        ("the-user", "GET", "/image", 200),
        ("the-user", "POST", "/train", 403),
        (None, "GET", "/image", 401),
    ]
    assert lines[0]["subjects"] == {"image": hash_of("Doe^Jane")}
    assert lines[0]["role"] == "user"
    assert lines[0]["from"] == "127.0.0.1"
    assert lines[0]["request"] == answered.headers["x-request-id"]
    assert "Jane" not in json.dumps(lines)
    assert tokens["user"] not in json.dumps(lines)


def test_the_audit_log_tells_which_series_a_viewer_opened(tmp_path):
    client(tmp_path).get("/proxy/dicom/wado/studies/1.2.3/series/1.2.3.4/metadata")
    (line,) = audit(tmp_path)
    assert line["subjects"] == {"studies": hash_of("1.2.3"), "series": hash_of("1.2.3.4")}
    assert line["service"] == "wado"


def test_the_audit_log_names_what_a_request_made(tmp_path):
    assert client(tmp_path).put("/session").is_success
    (line,) = audit(tmp_path)
    assert line["subjects"] == {"session_id": hash_of("the-new-one")}


def test_what_was_refused_does_not_bring_text_into_the_audit_log(tmp_path):
    client(tmp_path).get("/nothing", params={"tag": "Doe, Jane"})
    (line,) = audit(tmp_path)
    assert "Jane" not in json.dumps(line)


def test_an_audit_log_that_cannot_be_written_stops_no_work(tmp_path, caplog):
    (tmp_path / "audit").write_text("a file where the folder should be")
    with caplog.at_level(logging.ERROR):
        assert client(tmp_path).get("/image").status_code == 200
    assert "cannot be written" in caplog.text
    AuditLog(None).write({"nothing": "is kept"})


def test_two_ways_to_sign_in_are_one_too_many(tmp_path, tokens, monkeypatch):
    monkeypatch.setattr(monailabel_settings, "MONAI_LABEL_AUTH_ENABLE", True)
    with pytest.raises(InvalidRequest, match="Choose one way to sign in"):
        client(tmp_path, tokens_file=tokens["file"])
