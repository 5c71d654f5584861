"""Small images with known voxels and grids, and a writer of DICOM series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian


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
