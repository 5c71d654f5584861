"""Who may call the real server, and what it does when it is told to stop."""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deepgrow3d_app.serving.security.audit import hash_of

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher, Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROLES = ("user", "annotator", "reviewer", "admin")


@pytest.fixture
def studies(launcher: Launcher, phantom: Phantom) -> Path:
    folder = launcher.folder / "studies"
    folder.mkdir()
    shutil.copy(phantom.file, folder / "ct.nii.gz")
    return folder


@pytest.fixture
def tokens(launcher: Launcher) -> dict[str, str]:
    """A token for each role, made by the command."""
    made = {}
    for role in ROLES:
        done = launcher.deepgrow3d("token", "add", f"the-{role}", "--role", role, "--file", "tokens.txt")
        assert done.returncode == 0, done.stderr
        made[role] = done.stdout.strip()
    return made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def own_certificate(folder: Path) -> Path:
    """A certificate of this machine that it signed itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "tls.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


def audited(studies: Path) -> list[dict[str, Any]]:
    """The audit log of the server of ``studies``."""
    files = (studies / ".deepgrow3d" / "audit").glob("audit-*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_other_machines_are_kept_out_unless_something_says_who_calls(launcher: Launcher, studies: Path) -> None:
    done = launcher.deepgrow3d("serve", "--studies", str(studies), "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "nobody signs in" in done.stderr
    assert "--tokens FILE" in done.stderr


def test_each_role_may_do_its_own(launcher: Launcher, studies: Path, tokens: dict[str, str], phantom: Phantom) -> None:
    server = launcher.serve(studies, "--host", "0.0.0.0", "--tokens", "tokens.txt")
    assert server.request("GET", "/info/").status_code == 401
    assert server.request("GET", "/health/ready").json() == {"status": "ready", "faults": {}}

    def allowed(method: str, path: str, **kwargs: object) -> list[str]:
        """The roles that are not turned away."""
        answers = {
            role: server.request(method, path, headers=bearer(tokens[role]), **kwargs).status_code for role in ROLES
        }
        assert 401 not in answers.values()
        return [role for role in ROLES if answers[role] != 403]

    params = {"params": (None, json.dumps({"foreground": [phantom.centre], "background": []}))}
    label = {"label": ("label.nii.gz", phantom.label_file), "params": (None, '{"client_id": "somebody-else"}')}
    review = {"info": json.dumps({"segmentationMeta": {"status": "approved"}})}
    assert allowed("POST", "/infer/deepgrow3d?image=ct&output=json", files=params) == list(ROLES)
    assert allowed("PUT", "/datastore/label?image=ct", files=label) == ["annotator", "reviewer", "admin"]
    assert allowed("PUT", "/datastore/label/info?label=ct&tag=final", data={"info": '{"note": "ok"}'}) == [
        "annotator",
        "reviewer",
        "admin",
    ]
    assert allowed("PUT", "/datastore/label/info?label=ct&tag=final", data=review) == ["reviewer", "admin"]
    names = {"info": json.dumps({"label_info": [{"name": "kidney", "idx": 1}]})}
    assert allowed("PUT", "/datastore/label/info?label=ct&tag=final", data=names) == ["reviewer", "admin"]
    assert allowed("PUT", "/datastore/updatelabelinfo?label=ct&tag=final", data={"params": names["info"]}) == [
        "reviewer",
        "admin",
    ]
    assert allowed("DELETE", "/datastore/label?id=ct&tag=none") == ["reviewer", "admin"]
    image = {"file": ("ct.nii.gz", phantom.file.read_bytes())}
    assert allowed("PUT", "/datastore/", files=image) == ["admin"], "its voxels would be lost"
    assert allowed(
        "PUT", "/datastore/label?image=ct", files={**label, "params": (None, json.dumps(json.loads(review["info"])))}
    ) == [
        "reviewer",
        "admin",
    ]
    assert allowed("DELETE", "/datastore/?id=nothing") == ["admin"]
    assert allowed("PUT", "/model/deepgrow3d", files={"file": ("m.pt", b"x")}) == ["admin"]
    assert allowed("POST", "/train/none", json={}) == ["admin"]
    versions = server.request("GET", "/datastore/label/versions?label=ct", headers=bearer(tokens["user"])).json()
    assert [version["saved_by"] for version in versions] == ["the-annotator", *["the-reviewer", "the-admin"] * 2]

    assert launcher.deepgrow3d("token", "remove", "the-user", "--file", "tokens.txt").returncode == 0
    assert server.request("GET", "/info/", headers=bearer(tokens["user"])).status_code == 401
    replaced = [line for line in audited(studies) if line["route"] == "/datastore/" and line["who"] == "the-admin"]
    assert [line["subjects"] for line in replaced if line["method"] == "PUT"] == [{"image": hash_of("ct")}]
    assert {(line["who"], line["route"], line["status"]) for line in audited(studies)} >= {
        (None, "/info/", 401),
        ("the-user", "/datastore/label", 403),
        ("the-admin", "/train/{model}", 404),
    }


def test_annotators_whose_viewers_call_themselves_alike_are_told_apart(
    launcher: Launcher, studies: Path, tokens: dict[str, str], phantom: Phantom
) -> None:
    server = launcher.serve(studies, "--tokens", "tokens.txt")
    i, j, k = phantom.centre
    clicked = {"annotator": [i, j, k], "reviewer": [i + 1, j, k]}
    for role, click in clicked.items():
        params = {"foreground": [click], "background": [], "label": "liver", "client_id": "3D Slicer"}
        files = {"params": (None, json.dumps(params))}
        url = "/infer/deepgrow3d?image=ct&output=json"
        assert server.request("POST", url, headers=bearer(tokens[role]), files=files).ok
    names = [{"name": "liver", "idx": 1}, *({"name": f"part {value}", "idx": value} for value in range(2, 5))]
    info = json.dumps({"label_info": names, "client_id": "3D Slicer"})
    label = {"label": ("label.nii.gz", phantom.label_file), "params": (None, info)}
    for role in clicked:
        assert server.request("PUT", "/datastore/label?image=ct", headers=bearer(tokens[role]), files=label).ok
    url = "/datastore/label/versions?label=ct"
    versions = server.request("GET", url, headers=bearer(tokens["user"])).json()
    assert [(version["saved_by"], version["clicks"]["liver"]["foreground"]) for version in versions] == [
        (f"the-{role}", [click]) for role, click in clicked.items()
    ]


def test_tls(launcher: Launcher, studies: Path) -> None:
    certificate = own_certificate(launcher.folder)
    server = launcher.serve(studies, "--tls-certificate", str(certificate), certificate=certificate)
    answer = server.request("GET", "/info/")
    assert answer.ok
    assert "strict-transport-security" in answer.headers
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{server.url}/info/", timeout=30)


def test_behind_a_proxy_under_a_path_prefix(
    launcher: Launcher, studies: Path, tokens: dict[str, str], phantom: Phantom
) -> None:
    """As ``docs/security.md`` tells to set a proxy up: it passes the path on unchanged and says whom it speaks for."""
    launcher.settings["MONAI_LABEL_API_STR"] = "/deepgrow3d"
    server = launcher.serve(studies, "--tokens", "tokens.txt")
    passed_on = {"Host": "images.hospital", "X-Forwarded-For": "10.1.2.3", "X-Forwarded-Proto": "https"}
    signed_in = passed_on | bearer(tokens["annotator"])

    asked = server.request("GET", "/status", headers=passed_on | {"Accept": "text/html"}, allow_redirects=False)
    assert asked.status_code == 303
    assert asked.headers["location"] == "/deepgrow3d/login?next=%2Fdeepgrow3d%2Fstatus"
    form = {"token": tokens["annotator"], "next": "/deepgrow3d/try"}
    welcome = server.request("POST", "/login", headers=passed_on, data=form, allow_redirects=False)
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/deepgrow3d/try")
    assert "; Secure" in welcome.headers["set-cookie"], "the proxy speaks TLS"
    assert server.request("GET", "/try", headers=signed_in).ok

    assert all(path.startswith("/deepgrow3d/") for path in server.request("GET", "/openapi.json").json()["paths"])
    params = {"params": (None, json.dumps({"foreground": [phantom.centre], "background": []}))}
    assert server.request("POST", "/infer/deepgrow3d?image=ct&output=json", headers=signed_in, files=params).ok
    label = {"label": ("label.nii.gz", phantom.label_file)}
    assert server.request("PUT", "/datastore/label?image=ct", headers=signed_in, files=label).ok
    assert requests.get(server.url.removesuffix("/deepgrow3d") + "/info/", timeout=30).status_code == 404
    assert {line["from"] for line in audited(studies) if line["route"] == "/datastore/label"} == {"10.1.2.3"}


def test_a_click_that_has_begun_is_answered_although_the_server_stops(
    launcher: Launcher, studies: Path, phantom: Phantom
) -> None:
    launcher.settings["DEEPGROW3D_ENGINE"] = "auto"
    server = launcher.serve(studies)
    server.wait_until_openvino_computes()
    answers: list[requests.Response] = []
    clicks = {"foreground": [phantom.centre], "background": []}
    clicking = threading.Thread(target=lambda: answers.append(server.infer(clicks, image="ct")))
    clicking.start()
    while not is_clicking(server):
        time.sleep(0.01)
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(40) in (0, -signal.SIGTERM)
    assert time.monotonic() - started < 30
    clicking.join()
    assert [answer.status_code for answer in answers] == [200]


def is_clicking(server: Server) -> bool:
    clicks = server.json("/status")["clicks"]
    return bool(clicks["running"] or clicks["answered"])


def test_a_disk_that_cannot_be_written_is_told(launcher: Launcher, studies: Path) -> None:
    server = launcher.serve(studies)
    moved = studies.with_name("moved")
    studies.rename(moved)
    answer = server.request("GET", "/health/ready")
    assert answer.status_code == 503
    assert "cannot be read" in answer.json()["faults"]["studies"]
    moved.rename(studies)
    assert server.request("GET", "/health/ready").ok
