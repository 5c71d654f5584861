"""This server, with the shipped network or with an imported one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.click_latency.server_process import ServerFailed, ServerProcess
from deepgrow3d_app.model.openvino_engine import openvino_is_installed

PROGRAM = (sys.executable, "-m", "deepgrow3d_app")
MODEL = "deepgrow3d"
START_S = 900  # it answers a click by itself before it listens: of the imported network, half a minute on an idle core
TAKE_OVER_S = 900
STAYS = "Clicks stay with"


def server(studies: Path, folder: Path) -> ServerProcess:
    """``deepgrow3d serve`` on ``studies``, with the shipped weights."""
    return ServerProcess(MODEL, [*PROGRAM, "serve", "--studies", str(studies)], folder, {}, START_S)


def server_of(checkpoint: Path, kept: Path, studies: Path, folder: Path) -> ServerProcess:
    """The same with the weights of ``checkpoint``; its converted network is kept in ``kept``."""
    command = [*PROGRAM, "serve", "--studies", str(studies), "--checkpoint", str(checkpoint)]
    return ServerProcess(MODEL, command, folder, {"DEEPGROW3D_CACHE_FOLDER": str(kept)}, START_S)


def wait_for_engine(running: ServerProcess) -> str:
    """Return when clicks are computed by what will go on computing them: its name.

    PyTorch answers until OpenVINO is ready; that takes some seconds at every start with a new studies folder.
    """
    deadline = time.monotonic() + TAKE_OVER_S
    while True:
        device: str = running.info()["models"][MODEL]["devices"][0]
        is_final = "cpu" not in device.lower() or "OpenVINO" in device or not openvino_is_installed()
        if is_final or STAYS in running.log_text() or time.monotonic() > deadline:
            return device
        time.sleep(0.2)


def import_weights(weights: Path, checkpoint: Path) -> None:
    """``deepgrow3d import-weights``.

    Raises:
        ServerFailed: it refuses them.
    """
    command = [*PROGRAM, "import-weights", str(weights), "--output", str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"the weights cannot be imported: {done.stderr.strip()}")
