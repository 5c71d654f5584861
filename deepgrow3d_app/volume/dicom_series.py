"""A volume as a DICOM series, for what knows DICOM only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from deepgrow3d_app import PRODUCT
from deepgrow3d_app.volume.geometry import AxisOrder
from deepgrow3d_app.volume.volume import Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Examination:
    """What the series says of itself. The same examination is given the same UIDs each time.

    Attributes:
        patient_id, patient_name: made up.
        study, series: their descriptions.
        date: of the study, ``YYYYMMDD``.
    """

    patient_id: str
    patient_name: str
    study: str
    series: str
    date: str = "20260101"

    def uid(self, *parts: str) -> str:
        """The UID of the study without ``parts``, and of what they name with them."""
        return generate_uid(entropy_srcs=[self.patient_id, self.study, *parts])


def write_dicom_series(volume: Volume, folder: Path, examination: Examination) -> list[Path]:
    """Write ``volume`` to ``folder``, a file for each slice, and return the files from feet to head.

    Axes are put in a scanner's usual order, as near to it as flips and swaps get: i to the patient's left, j to the
    back, k to the head. Voxels are stored exactly.

    Args:
        volume: a CT where it holds HU, else an MR.
        folder: made where it is missing.
        examination: patient, study and series.
    """
    lps = AxisOrder.to_ras(RAS_TO_LPS @ volume.affine)
    voxels = lps.apply(volume.array)
    affine = RAS_TO_LPS @ lps.apply_to_affine(volume.affine, volume.shape)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for k in range(voxels.shape[2]):
        header = _header(volume, affine, examination, k)
        plane = np.ascontiguousarray(voxels[:, :, k].T)
        header.Rows, header.Columns = plane.shape
        header.PixelData = plane.astype("<i2").tobytes()
        file = folder / f"{k:04d}.dcm"
        header.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def _header(volume: Volume, affine: np.ndarray, examination: Examination, k: int) -> Dataset:
    """All of slice ``k`` but its pixels; ``affine`` is voxel index to mm in LPS."""
    edges_mm = np.linalg.norm(affine[:3, :3], axis=0)
    header = Dataset()
    header.SOPClassUID = CTImageStorage if volume.is_ct else MRImageStorage
    header.SOPInstanceUID = examination.uid(examination.series, str(k))
    header.Modality = "CT" if volume.is_ct else "MR"
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    header.PatientID, header.PatientName = examination.patient_id, examination.patient_name
    header.PatientBirthDate, header.PatientSex = "", ""
    header.StudyInstanceUID, header.SeriesInstanceUID = examination.uid(), examination.uid(examination.series)
    header.FrameOfReferenceUID = examination.uid("frame of reference")
    header.PositionReferenceIndicator = ""
    header.StudyDate = header.SeriesDate = header.ContentDate = examination.date
    header.StudyTime = header.SeriesTime = header.ContentTime = "120000"
    header.StudyDescription, header.SeriesDescription = examination.study, examination.series
    header.StudyID, header.AccessionNumber, header.ReferringPhysicianName = "1", "", ""
    header.Manufacturer = PRODUCT
    header.SeriesNumber, header.AcquisitionNumber, header.InstanceNumber = 1, 1, k + 1
    header.ImagePositionPatient = _decimals(affine[:3, :3] @ (0, 0, k) + affine[:3, 3])
    header.ImageOrientationPatient = _decimals(
        np.concatenate([affine[:3, 0] / edges_mm[0], affine[:3, 1] / edges_mm[1]])
    )
    header.PixelSpacing = _decimals(edges_mm[[1, 0]])
    header.SliceThickness = _decimals(edges_mm[2:])[0]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.RescaleSlope, header.RescaleIntercept = _decimals(np.array([volume.slope, volume.intercept]))
    if volume.is_ct:
        header.RescaleType = "HU"
        header.KVP = ""
        header.WindowCenter, header.WindowWidth = 40, 400
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def _decimals(numbers: np.ndarray) -> list[str]:
    """As DICOM writes decimals: 16 characters at most."""
    return [f"{float(number):.10g}"[:16] for number in numbers]
