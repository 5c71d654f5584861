"""Twenty people at work, for locust: they click, correct, save, and open sessions. Run by ``benchmarks.load``.

What the server acknowledged is written down, a line of JSON each, before the next request: ``$ACKNOWLEDGED``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
from locust import HttpUser, between, task

ACKNOWLEDGED = Path(os.environ["ACKNOWLEDGED"])
IMAGES = sorted(Path(os.environ["IMAGES"]).glob("*.nii.gz"))
WRITING = threading.Lock()
NUMBERS = itertools.count()
ANSWERS_TO_BUSY = (429, 409)
"""Too much at once; a newer click of the same person took the place of this one."""


class Annotator(HttpUser):
    """Works on one image after the other, a second or two between clicks."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        self.number = next(NUMBERS)
        self.random = np.random.default_rng(self.number)
        self.choose()

    def choose(self) -> None:
        file = IMAGES[int(self.random.integers(len(IMAGES)))]
        self.image = file.name.removesuffix(".nii.gz")
        self.shape = nib.load(file).shape  # type: ignore[attr-defined]
        self.clicks: dict[str, list[list[int]]] = {"foreground": [], "background": []}

    def params(self, **more: object) -> tuple[None, str]:
        return None, json.dumps({"client_id": f"annotator {self.number}", "label": "structure", **more})

    @task(10)
    def click(self) -> None:
        kind = "foreground" if not self.clicks["foreground"] or self.random.random() < 0.6 else "background"
        voxel = [int(self.random.integers(n // 5, n - n // 5)) for n in self.shape]
        if voxel in self.clicks["foreground"] + self.clicks["background"] or len(self.clicks["foreground"]) > 8:
            self.choose()
            return
        self.clicks[kind].append(voxel)
        with self.client.post(
            f"/infer/deepgrow3d?image={self.image}&output=image",
            files={"params": self.params(**self.clicks, result_extension=".nii.gz")},
            name="click",
            catch_response=True,
        ) as answer:
            if answer.status_code in ANSWERS_TO_BUSY:
                answer.success()

    @task(3)
    def save(self) -> None:
        voxels = self.random.integers(0, 2, self.shape).astype(np.uint8)
        content = voxels.tobytes(order="F")
        info = [{"name": "structure", "idx": 1}]
        with self.client.put(
            f"/datastore/label?image={self.image}",
            files={"label": ("label.bin", content), "params": self.params(label_info=info)},
            name="save",
            catch_response=True,
        ) as answer:
            if answer.status_code == 200:
                digest = hashlib.sha256(voxels.tobytes()).hexdigest()
                line = json.dumps({"image": self.image, "version": answer.json()["version"], "sha256": digest})
                with WRITING, ACKNOWLEDGED.open("a") as file:
                    file.write(line + "\n")
            elif answer.status_code in ANSWERS_TO_BUSY:
                answer.success()
        self.choose()

    @task(1)
    def session(self) -> None:
        file = IMAGES[int(self.random.integers(len(IMAGES)))]
        with self.client.put(
            "/session/", files={"files": (file.name, file.read_bytes())}, name="open session", catch_response=True
        ) as answer:
            if answer.status_code in ANSWERS_TO_BUSY:
                answer.success()
                return
            if answer.status_code != 200:
                return
            session = answer.json()["session_id"]
        middle = [n // 2 for n in nib.load(file).shape]  # type: ignore[attr-defined]
        with self.client.post(
            f"/infer/deepgrow3d?session_id={session}&output=json",
            files={"params": self.params(foreground=[middle], background=[])},
            name="click in a session",
            catch_response=True,
        ) as answer:
            if answer.status_code in ANSWERS_TO_BUSY:
                answer.success()
        self.client.delete(f"/session/{session}", name="close session")

    @task(2)
    def look(self) -> None:
        self.client.get("/datastore/?output=all", name="list")
        self.client.get(f"/datastore/image?image={self.image}", name="download")
