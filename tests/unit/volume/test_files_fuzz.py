"""NIfTI and NRRD files with damaged headers are read, or refused with a reason. `make fuzz` sends more of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepgrow3d_app.errors import InvalidInput
from deepgrow3d_app.volume.files import encode_mask, read_mask, read_volume
from deepgrow3d_app.volume.volume import Volume
from tests.unit.volume.conftest import nifti_bytes, nrrd_bytes

SEEDS = {
    ".nii": nifti_bytes(),
    ".nii.gz": gzip.compress(nifti_bytes()),
    ".nrrd": nrrd_bytes(),
    "-gzip.nrrd": encode_mask(np.ones((2, 3, 4), np.uint8), np.eye(4), ".nrrd"),
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants")


Found = TypeVar("Found")


def outcome(read: Callable[[Path], Found], path: Path) -> Found | InvalidInput:
    try:
        return read(path)
    except InvalidInput as refusal:
        return refusal


@pytest.mark.parametrize("extension", SEEDS)
@settings(deadline=None)
@given(data=st.data())
def test_no_bytes_raise_anything_untyped(scratch, extension, data):
    content = bytearray(SEEDS[extension])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=4))
        content[at : at + len(piece)] = piece
    path = scratch / f"mutant{extension}"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    readers: tuple[Callable[[Path], Any], ...] = (read_volume, read_mask)
    for read in readers:
        found = outcome(read, path)
        if isinstance(found, InvalidInput):
            assert path.name in str(found)
        else:
            array = found.array if isinstance(found, Volume) else found[0]
            assert 0 < array.size <= 1032 * len(content)


@pytest.mark.parametrize("extension", [".nii", ".nrrd"])
@settings(deadline=None)
@given(content=st.binary(max_size=600))
def test_no_header_raises_anything_untyped(scratch, extension, content):
    """Arbitrary bytes behind a valid beginning, so that they reach the parser."""
    start = {".nrrd": b"NRRD0004\n", ".nii": b""}[extension]
    whole = bytearray(start + content + b"\n\n")
    if extension == ".nii":
        whole = whole.ljust(400, b"\0")
        whole[344:348] = b"n+1\0"
    path = scratch / f"arbitrary{extension}"
    path.write_bytes(whole)
    found = outcome(read_volume, path)
    assert path.name in str(found) if isinstance(found, InvalidInput) else found.array.size > 0
