"""A server that trains a small network on four hippocampi, and what is asked of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec
from tests.integration.conftest import ROOT
from tests.integration.launcher import Launcher, Server

HIPPOCAMPI = ROOT / "sample-data" / "reference" / "mr-hippocampus"
IMAGES = sorted(path.name.removesuffix(".nii.gz") for path in (HIPPOCAMPI / "images").iterdir())
NAMES = {1: "anterior hippocampus", 2: "posterior hippocampus"}
CENTRE = [18, 25, 18]
END_S = 200


@pytest.fixture
def studies(launcher: Launcher) -> Path:
    """The four hippocampi, nothing labelled, and a small untrained network to serve."""
    folder = launcher.folder / "studies"
    folder.mkdir()
    for name in IMAGES:
        shutil.copy(HIPPOCAMPI / "images" / f"{name}.nii.gz", folder)
    torch.manual_seed(0)
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(32, 32, 32), spacing_mm=(1.5, 1.5, 1.5), walker_sigmas=(0.05,))
    Checkpoint(spec, weights_of(build_network(spec))).save(launcher.folder / "model" / "small.safetensors")
    settings = {
        "DEEPGROW3D_REPLAY_FOLDERS": json.dumps([str(ROOT / "sample-data" / "replay" / "mr-abdomen")]),
        "DEEPGROW3D_REFERENCE_STRUCTURES": '["spleen"]',
    }
    launcher.settings.update(settings)
    return folder


@pytest.fixture
def server(launcher: Launcher, studies: Path) -> Iterator[Server]:
    """Serves the small network; every image has a final label."""
    server = serve(launcher, studies)
    label_all(server)
    yield server
    launcher.end_all()


def serve(launcher: Launcher, studies: Path) -> Server:
    return launcher.serve(studies, "--checkpoint", str(launcher.folder / "model" / "small.safetensors"))


def label_all(server: Server) -> None:
    for name in IMAGES:
        content = (HIPPOCAMPI / "labels" / f"{name}.nii.gz").read_bytes()
        assert server.save_label(name, "label.nii.gz", content, names=NAMES).ok


def train(server: Server, **order: Any) -> dict[str, Any]:
    response = server.request("POST", "/train/deepgrow3d", json={"client_id": "anna", "deepgrow3d": order})
    assert response.ok, response.text
    return dict(response.json())


def ended(server: Server) -> dict[str, Any]:
    """The training, once it has ended."""
    return until(server, lambda state: state["status"] != "RUNNING")


def until(server: Server, is_so: Any) -> dict[str, Any]:
    deadline = time.monotonic() + END_S
    while not is_so(state := server.json("/train/")):
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    return dict(state)


def trainers_of(folder: Path) -> list[int]:
    """The processes that train in ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"deepgrow3d_app.retraining.process" in words and any(str(folder).encode() in word for word in words):
            found.append(int(process.name))
    return found
