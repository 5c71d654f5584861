"""Starts a real server, a process of its own with an empty home folder, and talks to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import requests

from tests.integration.phantom import voxels_of

START_S = 120
STOP_S = 30
ANSWER_S = 120

LOGS = ("clicks", "audit")

Voxel = Sequence[int]
Files = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A running server, and how tests talk to it.

    Attributes:
        url: where it listens, with the prefix of its paths.
        folder: holds everything it may write to, and is its working folder.
        studies: the folder it serves, in ``folder``.
        log: what it prints, outside of ``folder``.
        process: the process, leader of a process group of its own.
        certificate: of a server that speaks TLS.
    """

    url: str
    folder: Path
    studies: Path
    log: Path
    process: subprocess.Popen[bytes]
    certificate: Path | None = None

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """One HTTP request over a connection of its own."""
        verify = True if self.certificate is None else str(self.certificate)
        return requests.request(method, self.url + path, timeout=ANSWER_S, verify=verify, **kwargs)

    def json(self, path: str) -> Any:
        """The JSON at ``path``."""
        response = self.request("GET", path)
        assert response.ok, response.text
        return response.json()

    def infer(
        self, params: object, files: Files | None = None, model: str = "deepgrow3d", **query: str
    ) -> requests.Response:
        """``POST /infer`` with ``params`` as JSON, or as they are where they are text."""
        text = params if isinstance(params, str) else json.dumps(params)
        return self.request("POST", f"/infer/{model}", params=query, files={"params": (None, text), **(files or {})})

    def mask(
        self, image: str, foreground: Sequence[Voxel], background: Sequence[Voxel] = (), **params: str
    ) -> npt.NDArray[np.uint8]:
        """The mask of all these clicks, (i, j, k)."""
        clicks = {"foreground": foreground, "background": background, "result_extension": ".nii.gz"}
        response = self.infer({**clicks, **params}, image=image, output="image")
        assert response.ok, response.text
        return voxels_of(response.content)

    def save_label(
        self, image: str, name: str, content: bytes, *, names: Mapping[int, str] | None = None, **query: str
    ) -> requests.Response:
        """``PUT /datastore/label``, in the form viewers use."""
        default = {1: "liver"} | {value: f"part {value}" for value in range(2, 13)}
        info = [{"name": text, "idx": value} for value, text in (names or default).items()]
        params = json.dumps({"label_info": info, "model": "deepgrow3d"})
        files = {"label": (name, content), "params": (None, params)}
        return self.request("PUT", "/datastore/label", params={"image": image, **query}, files=files)

    def files(self) -> set[Path]:
        """All that lies in its folder, but for the logs of clicks and of requests, which are meant to stay."""
        return {
            path
            for path in self.folder.rglob("*")
            if not path.as_posix().partition("/.deepgrow3d/")[2].startswith(LOGS)
        }

    def stop(self) -> int:
        """End it as an operator does, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """End it as a lack of memory does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def wait_until_openvino_computes(self) -> None:
        """Return when the network is converted: the masks of two engines are not the same to the last voxel."""
        deadline = time.monotonic() + START_S
        while "OpenVINO" not in self.json("/info/")["models"]["deepgrow3d"]["devices"][0]:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def wait_until_it_answers(self) -> None:
        """Return when it does; fails when the process ends before that."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                if self.request("GET", "/health/live").ok:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(0.1)
                pytest.fail(f"The server ended with status {status}.\n{self.log.read_text()}")
        pytest.fail(f"The server does not answer after {START_S} s.\n{self.log.read_text()}")


@dataclass(frozen=True, slots=True, eq=False)
class Launcher:
    """Starts servers and other commands in ``folder``, in an environment where nothing but ``settings`` is set up."""

    folder: Path
    servers: list[Server] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def serve(self, studies: Path, *options: str, certificate: Path | None = None) -> Server:
        """``deepgrow3d serve`` on ``studies``, once it answers."""
        return self._start(studies, [*DEEPGROW3D, "serve", "--studies", str(studies), *options], certificate)

    def start_command(self, studies: Path, *words: str) -> Server:
        """``deepgrow3d`` with ``words``, a command that serves, once it answers."""
        return self._start(studies, [*DEEPGROW3D, *words])

    def start_server(self, studies: Path, app: str, *options: str) -> Server:
        """``monailabel start_server`` on ``studies``, once it answers."""
        command = ["monailabel", "start_server", "--app", app, "--studies", str(studies), *options]
        return self._start(
            studies, [*command, "--uvicorn_app", "deepgrow3d_app.serving.server:app", "--host", "127.0.0.1"]
        )

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """``command``, to its end."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=START_S,
        )

    def deepgrow3d(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``deepgrow3d`` with ``arguments``, to its end."""
        return self.run([*DEEPGROW3D, *arguments])

    def end_all(self) -> None:
        """Leave no process behind."""
        for server in self.servers:
            if server.process.poll() is None:
                server.kill()

    def _start(self, studies: Path, command: Sequence[str], certificate: Path | None = None) -> Server:
        port = free_port()
        log = self.folder.with_name(f"{self.folder.name}-{len(self.servers)}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        scheme = "http" if certificate is None else "https"
        prefix = self.settings.get("MONAI_LABEL_API_STR", "")
        server = Server(f"{scheme}://127.0.0.1:{port}{prefix}", self.folder, studies, log, process, certificate)
        self.servers.append(server)
        server.wait_until_it_answers()
        return server

    def _environment(self) -> dict[str, str]:
        """This one's, without what a user of another home folder would not have."""
        for name in ("home", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        foreign = ("MONAI", "DEEPGROW3D_", "XDG_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {
            **kept,
            **self.settings,
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
            "PYTHONUNBUFFERED": "1",
        }


DEEPGROW3D = (sys.executable, "-m", "deepgrow3d_app")


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
