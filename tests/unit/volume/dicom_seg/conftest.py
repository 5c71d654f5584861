"""Small series in several positions, and label maps without any symmetry."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from deepgrow3d_app.volume.dicom import read_dicom_series
from deepgrow3d_app.volume.dicom_seg.encode import encode_seg
from deepgrow3d_app.volume.dicom_seg.segment import Origin, Segment
from deepgrow3d_app.volume.dicom_series import Examination, write_dicom_series
from deepgrow3d_app.volume.volume import Volume

SHAPE = (12, 9, 7)
SEGMENTS = [Segment(1, "spleen"), Segment(2, "kidney_left"), Segment(3, "my lesion")]
ORIGIN = Origin("DeepGrow 3D", "1.2.3")


def rotation(about_x: float, about_y: float, about_z: float) -> np.ndarray:
    """By these degrees, one after the other."""
    (a, b, c) = np.deg2rad((about_x, about_y, about_z))
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


POSITIONS = {
    "axial": rotation(0, 0, 0),
    "oblique": rotation(20, -15, 35),
    "reversed": rotation(0, 0, 0),
    "tilted": np.array([[1, 0, 0], [0, 1, 0.3], [0, 0, 1]]),
}


@pytest.fixture
def make_series(tmp_path: Path) -> Callable[[str], Path]:
    """``make_series("oblique")`` writes the series and returns its folder."""

    def make(name: str) -> Path:
        affine = np.eye(4)
        affine[:3, :3] = POSITIONS[name] @ np.diag([-0.75, -1.5, 2.5])
        affine[:3, 3] = (40.0, -30.5, 900.25)
        voxels = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
        voxels[0] = -1000
        folder = tmp_path / name
        files = write_dicom_series(Volume(voxels, affine), folder, Examination(name, "Seg^Test", "study", name))
        if name == "reversed":
            for number, file in enumerate(reversed(files), start=1):
                header = pydicom.dcmread(file)
                header.InstanceNumber = number
                header.save_as(folder / f"r{number}.dcm")
                file.unlink()
        return folder

    return make


@pytest.fixture
def label() -> np.ndarray:
    """uint8 (i, j, k), values 0 to 3; the last slice is empty, value 3 is one voxel."""
    values = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)
    values[:, :, -1] = 0
    values[3, 4, 5] = 3
    return values


@pytest.fixture
def grid() -> Callable[[Path], Volume]:
    """The volume in a folder."""
    return read_dicom_series


def encoded(label, series, segments=tuple(SEGMENTS), **given):
    return encode_seg(label, series, segments, ORIGIN, description="a label", series_number=9001, **given)


def header_of(content):
    return pydicom.dcmread(io.BytesIO(content))
