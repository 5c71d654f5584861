"""What bad input is refused with, and the files that it must not touch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import requests

LIVER = [30, 50, 56]
CLICKS = {"foreground": [LIVER], "background": []}
GRID = np.diag([3.0, 3.0, 3.0, 1.0])

Fingerprint = dict[Path, str | None]

REFUSED: set[tuple[str | None, str | None, str]] = set()
"""Method, address and content of everything that was refused so far."""


@dataclass
class Files:
    """Everything that the server could write to: its working folder, its app folder."""

    folders: tuple[Path, ...]
    known: Fingerprint = field(default_factory=dict)

    def fingerprint(self) -> Fingerprint:
        """A hash of every file but the audit log, which tells of refusals; ``None`` for a folder."""
        paths = [
            path
            for folder in self.folders
            for path in folder.rglob("*")
            if "__pycache__" not in path.parts and "audit" not in path.parts
        ]
        return {path: None if path.is_dir() else hash_of(path) for path in paths}


def hash_of(path: Path) -> str:
    status = path.stat()
    return hash_of_version(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def hash_of_version(path: Path, *version: int) -> str:
    """Nothing can change a file and leave its time of change as it was, so it is read once."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_refused(response: requests.Response, status: int, *says: str) -> None:
    """The answer is JSON, ``{"detail": reason}``, and the reason holds all of ``says``."""
    request = response.request
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    boundary = (request.headers.get("content-type") or "").rpartition("boundary=")[2].encode() or b"\0"
    REFUSED.add((request.method, request.url, hashlib.sha256(body.replace(boundary, b"")).hexdigest()))
    assert response.status_code == status, response.text
    answer = response.json()
    assert set(answer) == {"detail"}
    detail = answer["detail"]
    assert isinstance(detail, str)
    assert [text for text in says if text not in detail] == [], detail
    assert "Traceback" not in detail


def nifti(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64] = GRID) -> bytes:
    """The bytes of an uncompressed .nii file."""
    content: bytes = nib.Nifti1Image(voxels, affine).to_bytes()
    return content
