"""Somebody who clicks in a viewer: sends what 3D Slicer sends, sees the mask, clicks where it is wrong."""

from __future__ import annotations

import json
import math
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from requests_toolbelt import MultipartDecoder

from benchmarks.click_latency.server_process import ServerFailed, ServerProcess
from benchmarks.click_latency.studies import Study
from deepgrow3d_app.click.click import Click
from deepgrow3d_app.volume.boxed_mask import Region
from deepgrow3d_app.volume.files import read_mask

TIMEOUT_S = 1800
BUSY = 429
MAX_RETRIES = 50


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request.

    Attributes:
        seconds: from sending the request to the last byte of the answer; waiting after a 429 counts.
        n_bytes: length of the answer's body.
        busy: how often the server asked to come back later.
        body: that of the answer, and its content type.
    """

    seconds: float
    n_bytes: int
    busy: int
    body: tuple[bytes, str]


def send_clicks(
    server: ServerProcess, image: str, label: str, client_id: str, clicks: Sequence[Click], extension: str
) -> Answer:
    """All ``clicks`` on one structure, as 3D Slicer's module sends them.

    Raises:
        ServerFailed: an answer that is none.
    """
    params: dict[str, Any] = {
        "label": label,
        "foreground": [list(click.index) for click in clicks if click.is_positive],
        "background": [list(click.index) for click in clicks if not click.is_positive],
        "client_id": client_id,
        "result_extension": extension,
        "result_dtype": "uint8",
    }
    url = f"{server.url}/infer/{server.model}"
    started = time.perf_counter()
    busy = 0
    while True:
        try:
            # As Slicer, over a connection of its own; no proxy of the environment must be asked for 127.0.0.1.
            with requests.Session() as http:
                http.trust_env = False
                files = {"params": (None, json.dumps(params))}
                response = http.post(url, params={"image": image}, files=files, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            server.check()
            raise ServerFailed(f"a click was not answered ({type(error).__name__})") from error
        if response.status_code != BUSY or busy == MAX_RETRIES:
            break
        busy += 1
        time.sleep(float(response.headers.get("Retry-After", 1)))
    seconds = time.perf_counter() - started
    if not response.ok:
        raise ServerFailed(f"a click was answered with status {response.status_code}: {response.text[:300]}")
    body = (response.content, response.headers["content-type"])
    return Answer(seconds, len(response.content), busy, body)


class Annotator:
    """Works on one structure of one study, and clicks the deepest voxel of the largest error of the last answer.

    Args:
        server: what answers.
        study: what is annotated; its name is the image's id.
        structure: which of its truths.
        extension: of the masks that are asked for.
    """

    def __init__(self, server: ServerProcess, study: Study, structure: str, extension: str) -> None:
        self.clicks: list[Click] = []
        self._server = server
        self._study = study
        self._structure = structure
        self._extension = extension
        self._client_id = uuid.uuid4().hex
        self._mask: Region = np.zeros(study.shape, np.bool_)

    def click(self) -> Answer:
        """One more click, and its answer."""
        truth = self._study.truths[self._structure]
        taken = [click.index for click in self.clicks]
        click = self._study.simulator.next_click(truth, self._mask, taken)
        if click is None:  # nothing is left to correct: go on somewhere inside
            click = self._study.simulator.next_click(truth, np.zeros_like(truth), taken)
        if click is None:
            raise ServerFailed(f"all of '{self._structure}' has been clicked: ask for fewer clicks")
        self.clicks.append(click)
        answer = self._send()
        self._mask = self._voxels(answer)
        return answer

    def undo(self) -> Answer:
        """The last click is taken back."""
        self.clicks.pop()
        return self._send()

    def dice(self) -> float:
        """Of the mask and the truth, after the last click."""
        truth = self._study.truths[self._structure]
        total = int(truth.sum()) + int(self._mask.sum())
        return 2 * int((truth & self._mask).sum()) / total if total else math.nan

    def _send(self) -> Answer:
        return send_clicks(
            self._server, self._study.name, self._structure, self._client_id, self.clicks, self._extension
        )

    def _voxels(self, answer: Answer) -> Region:
        parts = MultipartDecoder(*answer.body).parts
        content = next(part.content for part in parts if b'name="image"' in part.headers[b"Content-Disposition"])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"mask{self._extension}"
            file.write_bytes(content)
            mask, _ = read_mask(file)
        if mask.shape != self._study.shape:
            raise ServerFailed(f"a mask has the shape {mask.shape}, its image {self._study.shape}")
        return np.asarray(mask > 0)
