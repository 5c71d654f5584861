"""A label map of a DICOM series as a DICOM SEG, by highdicom."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.valuerep import DA, TM

from deepgrow3d_app import PRODUCT
from deepgrow3d_app.errors import InvalidRequest, LabelMismatch, UnsupportedVolume
from deepgrow3d_app.volume.dicom import SeriesGrid, read_series_grid
from deepgrow3d_app.volume.dicom_seg.organ_codes import SCHEME, Code, structure_code
from deepgrow3d_app.volume.dicom_seg.segment import Origin, SegIdentity, Segment, named_segments
from deepgrow3d_app.volume.volume import Mask

MAX_NAME = 64
"""Characters that DICOM has room for."""

NEEDED = ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
COPIED_TEXTS = ("PatientID", "PatientName", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName")
SEXES = ("M", "F", "O")
COPIED_TIMES: dict[str, Callable[[str], object]] = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}

UTF_8 = "ISO_IR 192"
"""The series' own character set may not have room for the structures' names; what is copied of it is encoded anew."""


def encode_seg(
    mask: Mask,
    series: Path,
    segments: Sequence[Segment],
    origin: Origin,
    *,
    description: str,
    series_number: int,
    identity: SegIdentity | None = None,
    made_at: datetime | None = None,
) -> bytes:
    """The bytes of a DICOM SEG file, with a binary segment for each structure in ``mask``.

    Patient, study and frame of reference are those of the series, and every frame refers to the slice that it was
    drawn on. Slices without a voxel of a structure have no frame for it.

    Args:
        mask: uint8 (i, j, k), on the grid of :func:`~deepgrow3d_app.volume.dicom.read_dicom_series`.
        series: the folder with the series.
        segments: names of values; a value without one is called ``label 3``, a name without voxels is left out.
        origin: what made the mask.
        description: what viewers list it as.
        series_number: where viewers list it.
        identity: its UIDs; ``None`` makes new ones.
        made_at: local date and time of its content; ``None`` for the present.

    Raises:
        LabelMismatch: the mask has another shape than the series.
        InvalidRequest: the mask is empty, which a DICOM SEG cannot be.
        UnsupportedVolume: the series says too little of itself to be referred to.
        UnreadableVolume: the series cannot be read.
    """
    import highdicom  # half a second, which only those wait for who need it

    grid = read_series_grid(series)
    if mask.shape != grid.shape:
        raise LabelMismatch(f"The label has {mask.shape} voxels, its series has {grid.shape}. Draw it on the series.")
    present = named_segments(mask, segments)
    if not present:
        raise InvalidRequest(
            "The label is empty: no voxel is drawn, and a DICOM SEG needs one. Draw a structure first."
        )
    sources = _sources(grid, series.name)
    numbers = np.zeros(256, np.uint8)  # DICOM counts segments from 1, without gaps
    numbers[[segment.value for segment in present]] = np.arange(1, len(present) + 1)
    identity = identity or SegIdentity(highdicom.UID(), highdicom.UID())
    seg = _made(
        series.name,
        specific_character_set=UTF_8,
        source_images=sources,
        pixel_array=np.ascontiguousarray(numbers[mask].transpose(2, 1, 0)),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(number, one, origin) for number, one in enumerate(present, start=1)],
        series_instance_uid=identity.series_uid,
        series_number=series_number,
        sop_instance_uid=identity.instance_uid,
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=origin.algorithm_name,
        software_versions=origin.algorithm_version,
        device_serial_number="0",
        series_description=_text(description),
        content_label="FINAL",
        content_description=_text(description),
        omit_empty_frames=True,
    )
    if made_at is not None:
        seg.ContentDate = DA(made_at.strftime("%Y%m%d"))
        seg.ContentTime = TM(made_at.strftime("%H%M%S.%f"))
    file = io.BytesIO()
    seg.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _made(series: str, **given: Any) -> Any:
    """The segmentation that highdicom makes; what it cannot make of the headers of ``series`` is their fault."""
    import highdicom

    try:
        return highdicom.seg.Segmentation(**given)
    except (ValueError, TypeError, AttributeError) as error:
        raise UnsupportedVolume(
            series, f"no DICOM SEG can refer to it ({error})", "Save the label as a file of another format."
        ) from error


def _sources(grid: SeriesGrid, name: str) -> list[pydicom.Dataset]:
    """The headers of the slices, as highdicom wants them."""
    sources: list[pydicom.Dataset] = [pydicom.dcmread(one.path, stop_before_pixels=True) for one in grid.slices]
    for source in sources:
        for needed in NEEDED:
            if not source.get(needed):
                raise UnsupportedVolume(
                    name, f"a slice of it has no {needed}", "Save the label as a file of another format."
                )
        for text in COPIED_TEXTS:  # may be absent in the series, and may not in what is derived from it
            if text not in source:
                setattr(source, text, "")
        if source.PatientSex not in SEXES:
            source.PatientSex = ""
        for moment, kind in COPIED_TIMES.items():
            if not _is_valid(source.get(moment), kind):
                setattr(source, moment, "")
        # Equal for the reader of the series, which tolerates roundings. highdicom does not.
        source.ImageOrientationPatient = sources[0].ImageOrientationPatient
    return sources


def _is_valid(value: Any, kind: Callable[[str], object]) -> bool:
    try:
        kind(str(value))
    except ValueError:
        return False
    return value is not None


def _described(number: int, segment: Segment, origin: Origin) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    code = structure_code(segment.name)
    described = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=_text(segment.name),
        segmented_property_category=_concept(code.category),
        segmented_property_type=_concept(code.type),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=origin.algorithm_name,
            family=codes.cid7162.ArtificialIntelligence,
            version=origin.algorithm_version,
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=_text(segment.name),
    )
    if code.side is not None:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(code.side)]
    return described


def _text(words: str) -> str:
    """``words`` without what DICOM gives a meaning of its own: a backslash parts values, controls end lines."""
    return "".join("/" if letter == "\\" else letter if letter.isprintable() else " " for letter in words)[:MAX_NAME]


def _concept(code: Code) -> Any:
    import highdicom

    return highdicom.sr.CodedConcept(code.value, SCHEME, code.meaning)
