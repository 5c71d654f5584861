"""Random kill -9 of the server and of its trainer, while labels are saved, networks trained and published.

    python -m benchmarks.kills --kills 100

After every kill the server is started again. Every label that was acknowledged must be there, voxel for voxel; the
label must be the version that its info names, and no older than the last one acknowledged; what is served must be
one of the versions and answer a click; and the training must say what became of it. The first loss ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
import torch

from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.retraining.versions import Versions, sha256_of

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "sample-data" / "reference" / "mr-hippocampus" / "images"
STATUSES = {"DONE", "ERROR", "STOPPED", "INTERRUPTED", "RUNNING"}


class Victim:
    """A server that is killed, and what it acknowledged so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.studies = folder / "studies"
        self.served = folder / "model" / "small.safetensors"
        self.studies.mkdir(parents=True)
        self.shapes: dict[str, tuple[int, ...]] = {}
        for image in sorted(IMAGES.iterdir()):
            shutil.copy(image, self.studies)
            self.shapes[image.name.removesuffix(".nii.gz")] = nib.load(image).shape  # type: ignore[attr-defined]
        torch.manual_seed(0)
        spec = ModelSpec(
            channels=(4, 8, 8), patch_shape=(32, 32, 32), spacing_mm=(1.5, 1.5, 1.5), walker_sigmas=(0.05,)
        )
        Checkpoint(spec, weights_of(build_network(spec))).save(self.served)
        self.acknowledged: dict[str, tuple[int, bytes]] = {}
        self.log = (folder / "server.log").open("ab")
        self.start()

    def start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        words = ["serve", "--studies", str(self.studies), "--port", str(port), "--checkpoint", str(self.served)]
        environment = {
            **os.environ,
            "DEEPGROW3D_ENGINE": "torch",
            "DEEPGROW3D_REPLAY_FOLDERS": json.dumps([str(ROOT / "sample-data" / "replay" / "mr-abdomen")]),
            "DEEPGROW3D_REFERENCE_STRUCTURES": '["spleen"]',
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deepgrow3d_app", *words], stdout=self.log, stderr=subprocess.STDOUT, env=environment
        )
        for _ in range(600):
            if self.answers():
                return
            assert self.process.poll() is None, "the server does not start again"
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def answers(self) -> bool:
        try:
            return self.call("GET", "/info/").ok
        except requests.ConnectionError:
            return False

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=60, **more)

    def save(self, generator: random.Random) -> None:
        """A label whose voxels tell which save it was."""
        image = generator.choice(sorted(self.shapes))
        seed = generator.getrandbits(30)
        voxels = np.random.default_rng(seed).integers(0, 3, self.shapes[image]).astype(np.uint8)
        info = [{"name": "front", "idx": 1}, {"name": "back", "idx": 2}]
        files = {
            "label": ("label.bin", voxels.tobytes(order="F")),
            "params": (None, json.dumps({"label_info": info, "client_id": "victim"})),
        }
        answer = self.call("PUT", f"/datastore/label?image={image}", files=files)
        assert answer.ok, answer.text
        self.acknowledged[image] = (answer.json()["version"], hashlib.sha256(voxels.tobytes()).digest())

    def train(self) -> None:
        for body in ({"resume": True}, {"max_epochs": 1, "steps_per_epoch": 2, "force": True}):
            answer = self.call("POST", "/train/deepgrow3d", json=body)
            assert answer.status_code in (200, 400, 404, 429), answer.text
            if answer.ok:
                return

    def trainer(self) -> int | None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"retraining.process" in words and str(self.folder).encode() in words:
                return int(process.name)
        return None

    def check(self) -> str:
        """Raise where something was lost; what the training says."""
        for image, (number, digest) in self.acknowledged.items():
            versions = {one["number"] for one in self.call("GET", f"/datastore/label/versions?label={image}").json()}
            assert number in versions, f"version {number} of {image} is lost"
            kept = self.call("GET", f"/datastore/label/version?label={image}&version={number}").content
            assert _digest(kept) == digest, f"version {number} of {image} was changed"
            info = self.call("GET", f"/datastore/label/info?label={image}&tag=final").json()
            assert info["version"] >= number, f"the label of {image} went back from {number} to {info['version']}"
            label = self.call("GET", f"/datastore/label?label={image}&tag=final").content
            shown = self.call("GET", f"/datastore/label/version?label={image}&version={info['version']}").content
            assert _digest(label) == _digest(shown), f"the label of {image} is not the version {info['version']}"
        known = Versions(self.served)
        assert all(sha256_of(known.file(one.number)) == one.sha256 for one in known.all())
        assert not known.all() or known.current() is not None, "what is served is none of the versions"
        image = sorted(self.shapes)[0]
        params = json.dumps({"foreground": [[15, 20, 15]], "background": []})
        answer = self.call("POST", f"/infer/deepgrow3d?image={image}&output=json", files={"params": (None, params)})
        assert answer.ok, answer.text
        state = self.call("GET", "/train/")
        assert state.status_code in (200, 404)
        status = state.json()["status"] if state.ok else "none"
        assert status in STATUSES | {"none"}, status
        return str(status)


def _digest(content: bytes) -> bytes:
    image = nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(content)))
    return hashlib.sha256(np.asarray(image.dataobj).astype(np.uint8).tobytes()).digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator = random.Random(given.seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        victim = Victim(Path(folder))
        for number in range(given.kills):
            victim.save(generator)
            if generator.random() < 0.7:
                victim.train()
            stopped = threading.Event()

            def save_on(stopped: threading.Event = stopped) -> None:
                with contextlib.suppress(requests.RequestException):
                    while not stopped.is_set():
                        victim.save(generator)

            saving = threading.Thread(target=save_on)
            saving.start()
            time.sleep(generator.uniform(0, 12) if generator.random() < 0.7 else generator.uniform(0, 0.3))
            trainer = victim.trainer()
            if trainer is not None and generator.random() < 0.3:
                os.kill(trainer, signal.SIGKILL)
                counts["trainer"] += 1
                stopped.set()
                saving.join()
            else:
                victim.process.kill()
                victim.process.wait()
                counts["server"] += 1
                stopped.set()
                saving.join()
                victim.start()
            status = victim.check()
            counts[f"training {status}"] += 1
            print(number + 1, status, len(Versions(victim.served).all()), "versions", flush=True)
        print(dict(counts), {image: number for image, (number, _) in victim.acknowledged.items()})
        victim.process.kill()
        victim.process.wait()
        victim.log.close()


if __name__ == "__main__":
    main()
