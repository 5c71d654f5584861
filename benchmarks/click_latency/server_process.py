"""A server in a process of its own: started, watched over, ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests

SAMPLE_EVERY_S = 0.2
LOG_TAIL = 1500


class ServerFailed(Exception):
    """The server ended, or does not answer; the message holds the end of its log."""


class ServerProcess:
    """A context manager: entering it starts the server and returns when it answers; leaving it ends it.

    Args:
        model: its model that answers clicks.
        command: starts it; ``--port`` is added.
        folder: where it works and logs; its home folder and temporary files are below.
        environment: on top of that of this process.
        start_s: how long it may take until it answers.
    """

    def __init__(
        self, model: str, command: Sequence[str], folder: Path, environment: Mapping[str, str], start_s: float
    ) -> None:
        self.model = model
        self.start_s = 0.0
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._command = [*command, "--port", str(self._port)]
        self._folder = folder
        self._environment = environment
        self._patience_s = start_s
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._peak = 0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> ServerProcess:
        for name in ("home", "tmp"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={
                    **os.environ,
                    "HOME": str(self._folder / "home"),
                    "TMPDIR": str(self._folder / "tmp"),
                    "PYTHONUNBUFFERED": "1",
                    **self._environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._watcher.start()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._end()
            raise
        self.start_s = time.perf_counter() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def peak_bytes(self) -> int:
        """The most that it and the processes it started had in memory, until now.

        That is the sum of each process's own peak (VmHWM), over those that lived at the same time.
        """
        self._sample()
        return self._peak

    def info(self) -> Any:
        """What ``/info/`` says."""
        with requests.Session() as http:
            http.trust_env = False  # a proxy of the environment must not be asked for 127.0.0.1
            return http.get(f"{self.url}/info/", timeout=self._patience_s).json()

    def log_text(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """Nothing, unless it ended.

        Raises:
            ServerFailed: it did.
        """
        assert self._process is not None
        if self._process.poll() is not None:
            raise ServerFailed(f"it ended with status {self._process.returncode}: {self.log_text()[-LOG_TAIL:]}")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                self.info()
                return
            self.check()
            time.sleep(0.1)
        raise ServerFailed(f"it does not answer after {self._patience_s:.0f} s: {self.log_text()[-LOG_TAIL:]}")

    def _end(self) -> None:
        self._ended.set()
        if self._process is None or self._process.poll() is not None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        for process in (self._process, *children):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        self._process.wait()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            total = sum(_peak_of(process.pid) for process in (first, *first.children(recursive=True)))
            self._peak = max(self._peak, total)


def _peak_of(pid: int) -> int:
    """The largest resident set that the process ever had, in bytes; 0 where it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
