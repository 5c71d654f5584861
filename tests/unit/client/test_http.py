"""How servers are called: against a server that answers what it was sent."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from deepgrow3d_app.client.http import HttpSession, without_user
from deepgrow3d_app.client.server_method import ServerMethod
from deepgrow3d_app.client.training_client import TrainingClient
from deepgrow3d_app.errors import InvalidRequest, ServerFault, TrainingError


class EchoServer(HTTPServer):
    """What it answers to a path: (status, content)."""

    answers: ClassVar[dict[str, tuple[int, object]]] = {}


class Echo(BaseHTTPRequestHandler):
    """Answers as its server says, else with the headers that came."""

    def do_GET(self):
        status, content = EchoServer.answers.get(self.path, (200, dict(self.headers)))
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Not among the output of tests."""


@pytest.fixture
def server():
    with EchoServer(("127.0.0.1", 0), Echo) as one:
        one.answers.clear()
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture
def url(server):
    return f"http://127.0.0.1:{server.server_port}"


def test_a_token_is_sent_and_no_password_of_a_netrc(url, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login anna password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert TrainingClient(url, "t0ken").call("GET", "/")["Authorization"] == "Bearer t0ken"
    assert "Authorization" not in TrainingClient(url).call("GET", "/")


def test_this_machine_is_called_without_a_proxy_and_others_through_it(url, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert TrainingClient(url).call("GET", "/")["Host"] in url
    settings = HttpSession().merge_environment_settings("http://server.example/", {}, None, None, None)
    assert settings["proxies"]["http"] == "http://127.0.0.1:9"


def test_certificates_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "ours.pem")
    settings = HttpSession().merge_environment_settings("https://127.0.0.1/", {}, None, True, None)
    assert settings["verify"] == "ours.pem"


def test_names_and_passwords_of_an_address_are_not_printed():
    assert without_user("https://anna:secret@ward.example:8443/app/") == "https://ward.example:8443/app"


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (401, InvalidRequest, "Set the variable DEEPGROW3D_TOKEN"),
        (403, InvalidRequest, "does not let you do that: for admins"),
        (507, TrainingError, "cannot do it now. for admins"),
    ],
)
def test_refusals_say_what_to_do(server, url, status, error, says):
    server.answers["/train/"] = (status, {"detail": "for admins"})
    with pytest.raises(error, match=says) as refused:
        TrainingClient(url).call("GET", "/train/")
    assert "Check its address" not in str(refused.value)
    server.answers["/info/"] = (401, {"detail": "who?"})
    with pytest.raises(InvalidRequest, match="DEEPGROW3D_TOKEN"):
        ServerMethod(url)


def test_what_json_cannot_say_is_refused_here(url):
    with pytest.raises(InvalidRequest, match="cannot be asked for"):
        TrainingClient(url).call("POST", "/train/", {"learning_rate": float("nan")})


def test_another_program_at_the_address_is_told_as_such(server, url):
    server.answers["/train/"] = (200, b"<html>")
    with pytest.raises(ServerFault, match="its answer is no JSON"):
        TrainingClient(url).call("GET", "/train/")


def test_an_evaluation_knows_which_network_answers(server, url):
    info = {"name": "app", "version": "1", "models": {"deepgrow3d": {"sha256": "a" * 64}}}
    server.answers["/info/"] = (200, info)
    method = ServerMethod(url)
    assert method.record.details["sha256"] == "a" * 64
    server.answers["/info/"] = (200, {**info, "models": {"deepgrow3d": {"sha256": "b" * 64}}})
    assert ServerMethod(url).record != method.record
    with pytest.raises(ServerFault, match="serves another network than at the start"):
        method._enter_session(None)  # type: ignore[arg-type]
