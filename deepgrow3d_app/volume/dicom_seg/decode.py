"""A DICOM SEG, whoever made it, on the grid of the series that it was drawn on."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from deepgrow3d_app.errors import LabelMismatch, UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.dicom import SeriesGrid, Slice, read_series_grid
from deepgrow3d_app.volume.dicom_seg.segment import DecodedSeg, SegIdentity, Segment
from deepgrow3d_app.volume.geometry import Affine

NAME = "segmentation"
MAX_SEGMENTS = 255
TOLERANCE_VOXELS = 0.1
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame lies in the volume: voxels ``[i, j, k]``; columns or rows that run backwards are flipped first."""

    i: slice
    j: slice
    k: int
    flips: tuple[int, int]

    def voxels(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The pixels (rows, columns) of ``frame`` in the order of the volume's i and j."""
        return frame.T[:: self.flips[0], :: self.flips[1]]


def decode_seg(content: bytes | Path, series: Path) -> DecodedSeg:
    """The label map in the DICOM SEG ``content``, as voxels of the series in the folder ``series``.

    Frames are put where they say that they lie. Segments keep their numbers as values. A fractional segment counts
    where it is at least half of its maximum.

    Args:
        content: a file or its bytes.
        series: the folder with the series.

    Raises:
        UnreadableVolume: no DICOM SEG, or a damaged one.
        UnsupportedVolume: more segments than a label map has values.
        LabelMismatch: it does not lie on the grid of the series, or its segments overlap.
    """
    header = _read(content)
    grid = read_series_grid(series)
    _check_frame_of_reference(header, grid)
    segments = _segments(header)
    identity = _identity(header)
    mask = np.zeros(grid.shape, np.uint8, order="F")  # a slice lies in one piece
    names = {segment.value: segment.name for segment in segments}
    is_labelmap = str(header.get("SegmentationType", "")) == "LABELMAP"
    for number, frame, place in _frames(header, grid):
        here = mask[place.i, place.j, place.k]
        pixels = place.voxels(frame)
        values = pixels.astype(np.uint8) if is_labelmap else (pixels > 0).astype(np.uint8) * np.uint8(number)
        both = (here > 0) & (values > 0) & (here != values)
        if both.any():
            one, other = names.get(int(here[both][0])), names.get(int(values[both][0]))
            raise LabelMismatch(
                f"The segments '{one}' and '{other}' overlap in {int(both.sum())} voxels of slice {place.k}, and "
                "a label map has one value for each voxel. Take the overlap out of one of them."
            )
        np.maximum(here, values, out=here)
    return DecodedSeg(mask, segments, identity)


def _read(content: bytes | Path) -> pydicom.Dataset:
    # pydicom raises most of Python's exceptions on damaged files: whichever it is, the file is at fault.
    try:
        header = pydicom.dcmread(io.BytesIO(content) if isinstance(content, bytes) else content)
        modality = str(header.get("Modality", ""))
    except Exception as error:
        raise UnreadableVolume(NAME, f"it is no DICOM file ({error})") from error
    if modality != "SEG" or "SegmentSequence" not in header:
        raise UnreadableVolume(NAME, f"it is DICOM of modality '{modality}'", "Send a DICOM SEG.")
    return header


def _check_frame_of_reference(header: pydicom.Dataset, grid: SeriesGrid) -> None:
    source = pydicom.dcmread(grid.slices[0].path, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    theirs, ours = header.get("FrameOfReferenceUID"), source.get("FrameOfReferenceUID")
    if theirs and ours and theirs != ours:
        raise LabelMismatch(
            f"The segmentation lies in the frame of reference {theirs}, its series in {ours}. "
            "Send a segmentation of this series."
        )


def _identity(header: pydicom.Dataset) -> SegIdentity:
    series_uid, instance_uid = (str(header.get(name) or "") for name in ("SeriesInstanceUID", "SOPInstanceUID"))
    if not series_uid or not instance_uid:
        raise UnreadableVolume(NAME, "it has no UID")
    return SegIdentity(series_uid, instance_uid)


def _segments(header: pydicom.Dataset) -> tuple[Segment, ...]:
    segments = []
    for item in header.SegmentSequence:
        try:
            number = int(item.SegmentNumber)
        except (AttributeError, TypeError, ValueError) as error:
            raise UnreadableVolume(NAME, f"a segment of it has no number ({error})") from error
        if number == 0:  # the background of a label map
            continue
        if number > MAX_SEGMENTS:
            raise UnsupportedVolume(
                NAME, f"it has a segment {number}", f"A label map has {MAX_SEGMENTS} values: send fewer segments."
            )
        name = str(item.get("SegmentLabel") or item.get("SegmentDescription") or f"label {number}")
        segments.append(Segment(number, name))
    return tuple(sorted(segments, key=lambda segment: segment.value))


def _frames(header: pydicom.Dataset, grid: SeriesGrid) -> Iterator[tuple[int, npt.NDArray[Any], Place]]:
    """(segment number, pixels (j, i), place) of every frame; the number of a label map's is 0."""
    try:
        pixels = header.pixel_array
    except Exception as error:
        raise UnreadableVolume(NAME, f"its pixels cannot be decoded ({error})") from error
    pixels = pixels.reshape(-1, header.Rows, header.Columns)
    if str(header.get("SegmentationType", "")) == "FRACTIONAL":
        pixels = pixels >= max(1, header.get("MaximumFractionalValue", 255) / 2)
    to_index = np.linalg.inv(grid.affine)
    slices = _indices_of(grid.slices, to_index)
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), pydicom.Dataset())
    try:
        for frame, own in zip(pixels, header.PerFrameFunctionalGroupsSequence, strict=True):
            identified = _group(own, shared, "SegmentIdentificationSequence", is_needed=False)
            number = 0 if identified is None else int(identified.ReferencedSegmentNumber)
            if not 0 <= number <= MAX_SEGMENTS:
                raise ValueError(f"one is of segment {number}")
            yield number, frame, _place(to_index @ _affine(own, shared), frame.shape, grid, slices)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UnreadableVolume(NAME, f"its frames do not say where they lie ({error})") from error


def _affine(own: pydicom.Dataset, shared: pydicom.Dataset) -> Affine:
    """Pixel (i, j) of a frame to mm in RAS+; (4, 4), the third column is of no use."""
    directions = np.array(_group(own, shared, "PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3)
    row_step_mm, column_step_mm = map(float, _group(own, shared, "PixelMeasuresSequence").PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * column_step_mm
    affine[:3, 1] = directions[1] * row_step_mm
    affine[:3, 3] = np.array(_group(own, shared, "PlanePositionSequence").ImagePositionPatient, float)
    return LPS_TO_RAS @ affine


def _group(own: pydicom.Dataset, shared: pydicom.Dataset, name: str, *, is_needed: bool = True) -> Any:
    """What a frame says itself, or else all frames together."""
    found = own.get(name) or shared.get(name)
    if not found:
        if is_needed:
            raise KeyError(name)
        return None
    return found[0]


def _indices_of(slices: Sequence[Slice], to_index: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Where the slices themselves lie: index (i, j, k) of the first voxel of each, on the grid of even steps."""
    positions = np.array([[*one.position_lps_mm, 1.0] for one in slices])
    return np.asarray((positions @ (to_index @ LPS_TO_RAS).T)[:, :3], np.float64)


def _place(to_index: Affine, shape: tuple[int, int], grid: SeriesGrid, slices: npt.NDArray[np.float64]) -> Place:
    """Where a frame of ``shape`` (rows, columns) lies, when ``to_index`` takes its pixels to voxels of the series.

    A frame may say that it lies where its slice does, or where that would be if all steps were even: positions that
    a scanner rounds differ by more than the tolerance.
    """
    n_rows, n_columns = shape
    corners = np.array([(0, 0, 0, 1), (n_columns - 1, 0, 0, 1), (0, n_rows - 1, 0, 1)]) @ to_index.T
    nearest = int(np.abs(slices[:, 2] - corners[0, 2]).argmin())
    drift = slices[nearest] - (0, 0, nearest)
    candidates = [corners[:, :3], corners[:, :3] - drift]
    off, at = min(((float(np.abs(one - np.rint(one)).max()), one) for one in candidates), key=lambda found: found[0])
    (i0, j0, k), (i1, j_same, k1), (i_same, j1, k2) = np.rint(at).astype(int).tolist()
    is_aligned = (j_same, i_same, k1, k2) == (j0, i0, k, k)
    is_whole = (abs(i1 - i0), abs(j1 - j0)) == (n_columns - 1, n_rows - 1)
    is_inside = (
        min(i0, i1, j0, j1, k) >= 0
        and max(i0, i1) < grid.shape[0]
        and max(j0, j1) < grid.shape[1]
        and k < grid.shape[2]
    )
    if not (is_aligned and is_whole and is_inside) or off > TOLERANCE_VOXELS:
        where = ", ".join(f"{index:.2f}" for index in corners[0, :3])
        raise LabelMismatch(
            f"A frame of the segmentation lies at voxel ({where}) of its series of {grid.shape} voxels, "
            "or runs in another direction. Draw it on this series."
        )
    i, j = slice(min(i0, i1), max(i0, i1) + 1), slice(min(j0, j1), max(j0, j1) + 1)
    return Place(i, j, k, (1 if i1 >= i0 else -1, 1 if j1 >= j0 else -1))
