"""What a request passes before its route, on an application of a few routes."""

import pytest
from monailabel.config import settings as monailabel_settings
from pydantic import AnyHttpUrl

from deepgrow3d_app.serving.security.callers import SIGN_IN, WHO_CALLS
from deepgrow3d_app.serving.security.origins import is_loopback
from deepgrow3d_app.serving.security.upload_limit import OPEN_BYTES
from tests.unit.serving.security.conftest import ELSEWHERE, HERE, audit, bearer, client


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
