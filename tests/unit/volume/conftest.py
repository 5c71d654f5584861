"""Small images with known voxels and grids, files of all formats, and a reader that counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from deepgrow3d_app.volume.decoded_folder import DecodedFolder
from deepgrow3d_app.volume.files import encode_mask
from deepgrow3d_app.volume.volume import Volume

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
KILOBYTE = 1000


@pytest.fixture
def oblique_affine() -> np.ndarray:
    """Rotated about two axes, anisotropic, left-handed and off centre: nothing cancels by chance."""
    a, b = np.deg2rad((20.0, -35.0))
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag((-0.7, 0.9, 2.5))
    affine[:3, 3] = (-120.25, 33.5, 900.125)
    return affine


@pytest.fixture
def counted_voxels() -> np.ndarray:
    """int16 (4, 5, 6), no two alike, some below zero."""
    return (np.arange(120, dtype=np.int16) - 30).reshape(4, 5, 6)


@pytest.fixture
def write_dicom(tmp_path: Path) -> Callable[..., Path]:
    """``write_dicom(voxels, ...)`` writes voxels (i, j, k) as one file for each k and returns the folder."""

    def write(
        voxels: np.ndarray,
        *,
        folder: str = "series",
        positions_lps_mm: list[tuple[float, float, float]] | None = None,
        orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
        series_uid: str = "1.2.3.1",
        transfer_syntax: UID = ExplicitVRLittleEndian,
        edit: Callable[[FileDataset, int], Any] | None = None,
    ) -> Path:
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        n_slices = voxels.shape[2]
        positions = positions_lps_mm or [(-10.0, -20.0, 30.0 + 2.5 * k) for k in range(n_slices)]
        for k in range(n_slices):
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.MediaStorageSOPClassUID = CTImageStorage
            meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.4.{k}")
            one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
            one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
            one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3.0", series_uid
            one.Modality, one.SeriesDescription = "CT", folder
            one.ImagePositionPatient, one.ImageOrientationPatient = list(positions[k]), list(orientation)
            one.PixelSpacing, one.SliceThickness = [0.8, 0.6], 2.5  # between rows, between columns
            one.RescaleSlope, one.RescaleIntercept = 1, -1024
            one.Rows, one.Columns = voxels.shape[1], voxels.shape[0]
            one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
            one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
            one.PixelRepresentation = int(voxels.dtype.kind == "i")
            one.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
            if edit is not None:
                edit(one, k)
            if transfer_syntax == ImplicitVRLittleEndian:
                meta.TransferSyntaxUID = transfer_syntax
            elif transfer_syntax != ExplicitVRLittleEndian:
                one.compress(transfer_syntax)
            # Names that sort against the positions: the order must come from the headers.
            name = f"{folder}-{n_slices - 1 - k:03d}.dcm"
            one.save_as(target / name, enforce_file_format=True)
        return target

    return write


class CountingReader:
    """Volumes of one kilobyte, and the names that were asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, path: str) -> Volume:
        self.names.append(os.path.basename(path))
        return Volume(np.zeros((5, 10, 10), np.int16), np.eye(4), name=path)


@pytest.fixture
def files(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def folder(tmp_path_factory):
    return DecodedFolder(tmp_path_factory.mktemp("cache") / "decoded", 100 * KILOBYTE)


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def load_nifti(path: Path) -> Any:
    return nib.load(path)


def itk_affine(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.asarray(LPS_TO_RAS @ affine)


def nifti_bytes(**header_fields) -> bytes:
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    header = image.header.copy()
    for field, value in header_fields.items():
        header[field] = value
    header["vox_offset"] = header_fields.get("vox_offset", 352)
    content[:348] = header.binaryblock
    return bytes(content)


def nrrd_bytes(**replaced) -> bytes:
    head, _, voxels = encode_mask(np.zeros((2, 3, 4), np.uint8), np.eye(4), ".nrrd", compress=False).partition(b"\n\n")
    lines = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    lines |= {key.replace("_", " "): value for key, value in replaced.items()}
    return "\n".join(["NRRD0004", *(f"{key}: {value}" for key, value in lines.items()), "", ""]).encode() + voxels
