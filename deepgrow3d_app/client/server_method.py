"""A running server as a method that an evaluation can score: what is judged is what a viewer gets."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import nibabel as nib
import numpy as np
import requests

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.client.http import HttpSession, refuse_strangers, without_user
from deepgrow3d_app.errors import ServerFault
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.volume.files import read_mask
from deepgrow3d_app.volume.grid import check_grid
from deepgrow3d_app.volume.volume import Mask, Volume

SERVER = "server"
TIMEOUT_S = 300
NIFTI1_IMAGE: Any = nib.Nifti1Image  # nibabel's methods carry no types
MASK_EXTENSION = ".nrrd"
"""What 3D Slicer asks for."""


class ServerMethod:
    """Answers clicks by asking a DeepGrow 3D server, as 3D Slicer does.

    Each image is sent as a session; each click asks for the mask of all clicks so far. The server's own
    memory of earlier masks takes the place of ``previous``. Use it as a context manager: leaving it
    closes the session.

    Args:
        url: of the server, for example ``http://127.0.0.1:8000``.
        model: the name of the server's model.
        name: what tables call it.
        token: whose calls these are; "" where nobody has to sign in.

    Raises:
        ServerFault: nothing answers at ``url``, or it has no such model.
        InvalidRequest: it wants to know who calls.
    """

    def __init__(self, url: str, model: str = "deepgrow3d", name: str = SERVER, token: str = "") -> None:
        self._url = without_user(url)
        self._model = model
        self._http = HttpSession(token)
        self._volume: Volume | None = None
        self._session_id = ""
        self._client_id = ""
        self.record = MethodRecord(name, self._details())

    def __enter__(self) -> ServerMethod:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ServerFault):
            self._leave_session()
        self._http.close()

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """See :class:`~deepgrow3d_app.evaluation.protocol.Method`.

        Raises:
            ServerFault: the server is gone, refuses, answers with another grid, or serves another network meanwhile.
        """
        if volume is not self._volume:
            with contextlib.suppress(ServerFault):  # it may have expired meanwhile
                self._leave_session()
            self._enter_session(volume)
        if previous is None:
            # Another client: the server must not remember what it answered to an earlier trial.
            self._client_id = uuid.uuid4().hex
        params = {
            "foreground": [list(click.index) for click in clicks if click.is_positive],
            "background": [list(click.index) for click in clicks if not click.is_positive],
            "client_id": self._client_id,
            "result_extension": MASK_EXTENSION,
            "result_dtype": "uint8",
        }
        answer = self._request(
            "POST",
            f"/infer/{self._model}",
            params={"session_id": self._session_id, "output": "image"},
            files={"params": (None, json.dumps(params))},
        )
        with _temporary_file(MASK_EXTENSION) as file:
            file.write_bytes(answer.content)
            mask, affine = read_mask(file)
        check_grid(mask.shape, affine, volume, "The server's mask")
        return np.asarray(mask > 0).view(np.uint8)

    def _details(self) -> dict[str, str]:
        """What decides the answers: which network."""
        info = self._request("GET", "/info/").json()
        models = info.get("models", {})
        if self._model not in models:
            raise ServerFault(self._url, f"it has no model '{self._model}', only {', '.join(models)}")
        return {
            "server": self._url,
            "app": str(info.get("name")),
            "version": str(info.get("version")),
            "model": self._model,
            "sha256": str(models[self._model].get("sha256")),
        }

    def _enter_session(self, volume: Volume) -> None:
        if self._details() != self.record.details:
            raise ServerFault(self._url, "it serves another network than at the start of this evaluation")
        image: Any = NIFTI1_IMAGE(volume.array, volume.affine)
        image.header.set_slope_inter(volume.slope, volume.intercept)
        image.header.set_xyzt_units("mm")
        with _temporary_file(".nii") as file:
            nib.save(image, file)
            with file.open("rb") as content:
                answer = self._request("PUT", "/session/", files={"files": (file.name, content)})
        self._session_id = answer.json()["session_id"]
        self._volume = volume

    def _leave_session(self) -> None:
        if self._session_id:
            session_id, self._session_id, self._volume = self._session_id, "", None
            self._request("DELETE", f"/session/{session_id}")

    def _request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        try:
            answer = self._http.request(method, self._url + path, timeout=TIMEOUT_S, **kwargs)
        except requests.RequestException as error:
            raise ServerFault(self._url, f"it does not answer ({type(error).__name__})") from error
        refuse_strangers(answer)
        if not answer.ok:
            raise ServerFault(self._url, f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}")
        return answer


@contextlib.contextmanager
def _temporary_file(extension: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / f"volume{extension}"
