"""The loop that learns, by REST alone: 20 labelled hippocampi in, a training by the server, the new network judged.

    python -m benchmarks.loop HIPPOCAMPUS CT_TRUNK --json runs/loop.json

HIPPOCAMPUS: a folder of labelled cases, whose last 40 by name are never labelled here. CT_TRUNK: a case folder with
spleen and liver. Served first is a network that never saw a hippocampus. Clicks are those of the perfect user, through
the server, before and after; clicks on the same image are timed before and during the training.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.client.server_method import ServerMethod
from deepgrow3d_app.evaluation.metrics import Reference
from deepgrow3d_app.evaluation.protocol import annotate, perfect_user

START_FROM = Path(__file__).parent / "models" / "without-hippocampus.safetensors"
NAMES = {"anterior hippocampus": 1, "posterior hippocampus": 2}
LABELLED, HELD_OUT = 20, 40
HIPPOCAMPUS_CLICKS, ORGAN_CLICKS = (1, 3, 5), (1, 3, 5, 10, 15)
ORGANS = ("spleen", "liver")
TIMED_CLICKS = 40
START_S = 600


class LoopServer:
    """A server on a copy of everything, and its address."""

    def __init__(self, folder: Path, cases: list[CaseSource]) -> None:
        studies, model = folder / "studies", folder / "model"
        for made in (studies, model):
            made.mkdir(parents=True)
        for case in cases:
            shutil.copy(case.image, studies / f"{case.name}.nii.gz")
        shutil.copy(START_FROM, model / "deepgrow3d.safetensors")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = (folder / "server.log").open("wb")
        words = [
            "serve",
            "--studies",
            str(studies),
            "--port",
            str(port),
            "--checkpoint",
            str(model / "deepgrow3d.safetensors"),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deepgrow3d_app", *words],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ},
        )
        deadline = time.monotonic() + START_S
        while not self.computes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("The server does not start:\n" + (folder / "server.log").read_text()[-2000:])
            time.sleep(0.5)

    def computes(self) -> bool:
        """Whether it answers with the engine that it will stay with: on a CPU, OpenVINO."""
        try:
            (device, *_) = self.call("GET", "/info/")["models"]["deepgrow3d"]["devices"]
        except requests.RequestException:
            return False
        return "OpenVINO" in device or "cuda" in device

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def call(self, method: str, path: str, **more: Any) -> Any:
        response = requests.request(method, self.url + path, timeout=300, **more)
        response.raise_for_status()
        return response.json()

    def save(self, case: CaseSource) -> None:
        params = json.dumps({"label_info": [{"name": n, "idx": v} for n, v in NAMES.items()], "client_id": "loop"})
        with case.labels.open("rb") as content:
            files = {"label": (case.labels.name, content), "params": (None, params)}
            self.call("PUT", f"/datastore/label?image={case.name}", files=files)


def mean_dice(server: LoopServer, cases: list[CaseSource], structures: tuple[str, ...], clicks: tuple[int, ...]) -> Any:
    """By structure: mean Dice over the cases after each number of clicks."""
    rows: dict[str, list[list[float]]] = {}
    with ServerMethod(server.url) as method:
        for source in cases:
            case = source.load()
            for name in structures or tuple(case.structures):
                reference = Reference(case.truth(name), case.volume.spacing_mm)
                rounds = annotate(method, case.volume, reference, perfect_user(case.volume), max(clicks))
                dice = [one.dice for one, _ in rounds]
                rows.setdefault(name, []).append([dice[count - 1] for count in clicks])
    return {
        name: dict(zip(clicks, np.mean(values, axis=0).round(4).tolist(), strict=True)) for name, values in rows.items()
    }


def click_seconds(server: LoopServer, trunk: CaseSource, count: int) -> list[float]:
    """How long clicks take, each by an annotator of his own, on an image that is decoded."""
    volume = trunk.load().volume
    generator = np.random.default_rng(0)
    files = {"files": ("trunk.nii.gz", trunk.image.read_bytes())}
    session = server.call("PUT", "/session/", files=files)["session_id"]
    seconds = []
    for number in range(count + 2):
        voxel = [int(generator.integers(n // 4, 3 * n // 4)) for n in volume.shape]
        params = json.dumps({"foreground": [voxel], "background": [], "client_id": f"timed {number}"})
        started = time.perf_counter()
        server.call("POST", f"/infer/deepgrow3d?session_id={session}&output=json", files={"params": (None, params)})
        seconds.append(time.perf_counter() - started)
        time.sleep(0.3)
    return seconds[2:]


def p95(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hippocampus", type=Path)
    parser.add_argument("trunk", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    hippocampi = sorted(find_cases(given.hippocampus), key=lambda case: case.name)
    labelled, held_out = hippocampi[:LABELLED], hippocampi[-HELD_OUT:]
    (trunk,) = find_cases(given.trunk)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        server = LoopServer(Path(folder), labelled)
        try:
            for moment in ("before", "after"):
                result[moment] = {
                    "hippocampus": mean_dice(server, held_out, (), HIPPOCAMPUS_CLICKS),
                    "ct-trunk": mean_dice(server, [trunk], ORGANS, ORGAN_CLICKS),
                }
                print(moment, json.dumps(result[moment]), flush=True)
                if moment == "after":
                    break
                idle = click_seconds(server, trunk, TIMED_CLICKS)
                for case in labelled:
                    server.save(case)
                started = time.perf_counter()
                server.call("POST", "/train/deepgrow3d", json={"client_id": "loop", "max_epochs": given.epochs})
                while (state := server.call("GET", "/train/"))["step"] == 0:
                    if state["status"] != "RUNNING":
                        raise RuntimeError(f"The training ended before its first step: {state['message']}")
                    time.sleep(1)
                busy = click_seconds(server, trunk, TIMED_CLICKS)
                while (state := server.call("GET", "/train/"))["status"] == "RUNNING":
                    time.sleep(2)
                result["training"] = {**state, "seconds": round(time.perf_counter() - started)}
                result["click_p95_s"] = {"idle": round(p95(idle), 3), "training": round(p95(busy), 3)}
                print(
                    state["message"],
                    json.dumps(result["click_p95_s"]),
                    f"{p95(busy) / p95(idle):.2f} times",
                    flush=True,
                )
            result["versions"] = server.call("GET", "/model/versions/deepgrow3d")
        finally:
            server.stop()
    for data, clicks in (("hippocampus", 3), ("ct-trunk", 15)):
        for name, before in result["before"][data].items():
            after = result["after"][data][name]
            print(f"{name}: Dice at {clicks} clicks {before[clicks]:.3f} before, {after[clicks]:.3f} after")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
