"""What 3D Slicer's module *MONAI Label* sends, byte for byte, and what it makes of the answers.

The module cannot run without Slicer. Its calls, in its words and order, were taken from its source
(``plugins/slicer/MONAILabel`` of MONAI Label); ``test_slicer.py`` holds them against the client that the
``monailabel`` package carries, which is the module's own.
"""

from __future__ import annotations

import http.client
import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import numpy as np
import numpy.typing as npt
import requests
import SimpleITK as sitk

BOUNDARY = "----------lImIt_of_THE_fIle_eW_$"
CLIENT_ID = "user-xyz"
Point = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, eq=False)
class SlicerVolume:
    """A volume as Slicer loads it: by ITK, whose LPS coordinates it turns into RAS."""

    ijk_to_ras: npt.NDArray[np.float64]
    voxels: npt.NDArray[Any]

    @classmethod
    def load(cls, file: Path) -> SlicerVolume:
        """As *Add Data* does."""
        image = sitk.ReadImage(str(file))
        ijk_to_lps = np.eye(4)
        ijk_to_lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
        ijk_to_lps[:3, 3] = image.GetOrigin()
        return cls(np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijk_to_lps, sitk.GetArrayFromImage(image).transpose(2, 1, 0))

    def ijk(self, ras_mm: Point) -> list[int]:
        """A fiducial point as it is sent: rounded voxel indices."""
        return [round(float(place)) for place in (np.linalg.inv(self.ijk_to_ras) @ (*ras_mm, 1.0))[:3]]

    def value_at(self, ras_mm: Point) -> int:
        """What the slice views show at a place."""
        i, j, k = self.ijk(ras_mm)
        return int(self.voxels[i, j, k])


@dataclass(frozen=True, slots=True)
class SlicerModule:
    """The module, connected to ``server_url`` as it was typed, and what it sent so far."""

    server_url: str
    folder: Path
    sent: list[str] = field(default_factory=list)

    def connect(self) -> Any:
        """The round arrow: sign-in asked for, then what is served, then whether a training runs."""
        assert self.call("GET", "/auth/").status != 200, "sign-in is on"
        info = self.call("GET", "/info/")
        assert info.status == 200, info.body
        self.is_training()
        return info.json

    def next_sample(self, strategy: str = "first") -> tuple[Any, Path]:
        """*Next Sample*: (what the server tells, the file that is loaded)."""
        sample = self.call("POST", f"/activelearning/{quote_plus(strategy)}", {"client_id": CLIENT_ID}).json
        path = Path(sample["path"])
        if not path.exists():  # another machine's: it is downloaded, under the name that the server tells
            image = self.call("GET", f"/datastore/image?image={quote_plus(sample['id'])}")
            assert image.status == 200, image.body
            path = self.folder / sample["name"]
            path.write_bytes(image.body)
        return sample, path

    def create_session(self, file: Path) -> str:
        """The first click on a volume that was not loaded from the server."""
        self.sent.append("PUT /session/")
        with file.open("rb") as content:
            files = [("files", (file.name, content))]
            url = self.server_url.rstrip("/") + "/session/"
            answer = requests.put(url, files=files, data={"client_id": CLIENT_ID}, headers={}, timeout=120)
        assert answer.status_code == 200, answer.text
        session: str = answer.json()["session_id"]
        return session

    def deepgrow(
        self,
        image_id: str,
        label: str,
        foreground: Sequence[Sequence[int]],
        background: Sequence[Sequence[int]] = (),
        session_id: str = "",
    ) -> tuple[Path, Any]:
        """A point was placed: all points of the segment are sent. (the mask's file, params)."""
        params = {
            "label": label,
            "foreground": list(foreground),
            "background": list(background),
            "result_extension": ".nrrd",
            "result_dtype": "uint8",
            "client_id": CLIENT_ID,
        }
        selector = f"/infer/deepgrow3d?image={quote_plus(image_id)}"
        if session_id:
            selector += f"&session_id={quote_plus(session_id)}"
        answer = self.call_multipart("POST", selector, {"params": json.dumps(params)}, {})
        assert answer.status == 200, answer.body
        parts = parts_of(answer)
        (name, content) = next((name, content) for name, content in parts.items() if name != "params")
        file = self.folder / name
        file.write_bytes(content)
        return file, json.loads(parts["params"])

    def upload_image(self, file: Path, image_id: str) -> Answer:
        """*Upload Volume*, and before the label of a session's volume is submitted."""
        fields = {"params": json.dumps({"client_id": CLIENT_ID})}
        return self.call_multipart("PUT", f"/datastore/?image={quote_plus(image_id)}", fields, {"file": str(file)})

    def save_label(self, image_id: str, file: Path, names: Sequence[str], tag: str = "") -> Answer:
        """*Submit Label*."""
        info = [{"name": name, "idx": place} for place, name in enumerate(names, start=1)]
        selector = f"/datastore/label?image={quote_plus(image_id)}" + (f"&tag={quote_plus(tag)}" if tag else "")
        fields = {"params": json.dumps({"label_info": info, "client_id": CLIENT_ID})}
        return self.call_multipart("PUT", selector, fields, {"label": str(file)})

    def reopen(self, image_id: str, tag: str = "final") -> Path:
        """A label of the server, under the name that the header tells."""
        answer = self.call("GET", f"/datastore/label?label={quote_plus(image_id)}&tag={quote_plus(tag)}")
        assert answer.status == 200, answer.body
        name = answer.headers["content-disposition"].partition('filename="')[2].rstrip('"')
        file = self.folder / f"reopened-{name}"
        file.write_bytes(answer.body)
        return file

    def is_training(self) -> bool:
        """Whether the progress bar moves."""
        return self.call("GET", "/train/?check_if_running=true").status == 200

    def call(self, method: str, selector: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request of the module, on a connection of its own."""
        text = json.dumps(body) if body else None
        headers = {"content-type": "application/json", "content-length": str(len(text))} if text else {}
        return self._send(method, selector, text, headers)

    def call_multipart(self, method: str, selector: str, fields: Mapping[str, str], files: Mapping[str, str]) -> Answer:
        """One request of the module with files."""
        body = multipart(fields, files)
        content_type = f"multipart/form-data; boundary={BOUNDARY}"
        return self._send(method, selector, body, {"content-type": content_type, "content-length": str(len(body))})

    def _send(self, method: str, selector: str, body: Any, headers: Mapping[str, str]) -> Answer:
        address = urlsplit(self.server_url.rstrip("/"))  # the module takes slashes at the end away
        path = address.path.rstrip("/") + "/" + selector.lstrip("/")
        self.sent.append(f"{method} {path}")
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


def multipart(fields: Mapping[str, str], files: Mapping[str, str]) -> bytes:
    """Fields and files in the module's own encoding; a file's whole path is its name."""
    lines: list[bytes] = []
    for name, value in fields.items():
        lines += [
            f"--{BOUNDARY}".encode(),
            f'Content-Disposition: form-data; name="{name}"'.encode(),
            b"",
            value.encode(),
        ]
    for name, file in files.items():
        kind = mimetypes.guess_type(file)[0] or "application/octet-stream"
        lines += [
            f"--{BOUNDARY}".encode(),
            f'Content-Disposition: form-data; name="{name}"; filename="{file}"'.encode(),
            f"Content-Type: {kind}".encode(),
            b"",
            Path(file).read_bytes(),
        ]
    return b"".join(line + b"\r\n" for line in [*lines, f"--{BOUNDARY}--".encode(), b""])


def parts_of(answer: Answer) -> dict[str, bytes]:
    """The parts of a multipart answer: files by their file names, fields by theirs."""
    boundary = answer.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    parts = {}
    for part in answer.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        text = head.decode()
        named = text.partition('filename="')[2] or text.partition('name="')[2]
        parts[named.partition('"')[0]] = content.removesuffix(b"\r\n")
    return parts
