"""A folder with one DICOM series, as one volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from deepgrow3d_app.errors import UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.geometry import Affine, Shape
from deepgrow3d_app.volume.stored import StoredVoxels, check_shape, to_volume
from deepgrow3d_app.volume.volume import Volume

DUPLICATE_MM = 0.01
UNEVEN_SHARE_OF_STEP = 0.25  # positions rounded to 0.1 mm make steps of 0.6 and 0.7 mm out of 0.625


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Where one file's image lies, from its header alone. Positions and directions are LPS, in mm."""

    path: Path
    series_uid: str
    series_text: str
    modality: str | None
    n_rows: int
    n_columns: int
    position_lps_mm: npt.NDArray[np.float64]
    column_step_direction: npt.NDArray[np.float64]  # along i, from one column to the next
    row_step_direction: npt.NDArray[np.float64]  # along j, from one row to the next
    column_step_mm: float
    row_step_mm: float
    thickness_mm: float
    slope: float
    intercept: float

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Unit vector from this slice to the next."""
        return np.cross(self.column_step_direction, self.row_step_direction)

    @property
    def along_normal_mm(self) -> float:
        """The slice's position along its normal."""
        return float(self.position_lps_mm @ self.normal)


@dataclass(frozen=True, slots=True, eq=False)
class SeriesGrid:
    """Where the voxels of a series lie.

    Attributes:
        slices: one for each k, in this order.
        shape: voxels (i, j, k).
        affine: (4, 4), voxel index (i, j, k) to mm in RAS+.
    """

    slices: tuple[Slice, ...]
    shape: Shape
    affine: Affine


def read_dicom_series(folder: Path) -> Volume:
    """The series in ``folder``: i runs along a row of pixels, j down a column, k along the normal of the slices.

    That is the grid ITK gives the series. Files that are not DICOM, or hold no pixels, are passed
    over; folders inside are not searched. The rescale slope and intercept are applied where the
    result is whole numbers (HU), else they become the volume's; steps between slices may drift
    sideways evenly (a tilted gantry), which gives a sheared affine.

    Raises:
        UnreadableVolume: no DICOM image, or one whose header or pixels cannot be decoded.
        UnsupportedVolume: more than one series, colours, multi-frame files, slices of different size
            or orientation, two at one place, missing ones, uneven steps.
    """
    grid = read_series_grid(folder)
    values, slope, intercept = _read_values(grid.slices)
    stored = StoredVoxels(values.reshape(-1), grid.shape, grid.affine, slope, intercept)
    return to_volume(stored, folder.name, grid.slices[0].modality)


def read_series_grid(folder: Path) -> SeriesGrid:
    """Where the voxels of :func:`read_dicom_series` lie, from the headers alone.

    Raises:
        UnreadableVolume, UnsupportedVolume: as for the volume, but for what is wrong with pixels.
    """
    slices = [found for path in _files(folder) if (found := _read_header(path)) is not None]
    if not slices:
        raise UnreadableVolume(folder.name, "it holds no DICOM images", "Give a folder with one DICOM series.")
    _check_one_series(slices, folder.name)
    slices.sort(key=lambda one: (one.along_normal_mm, one.path.name))
    step_lps_mm = _check_steps(slices, folder.name)
    shape = check_shape((slices[0].n_columns, slices[0].n_rows, len(slices)), folder.name)
    return SeriesGrid(tuple(slices), shape, _affine(slices[0], step_lps_mm))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise UnreadableVolume(
            folder.name, f"it cannot be listed ({error.strerror})", "Check the folder's permissions."
        ) from error


def _read_header(path: Path) -> Slice | None:
    """What ``path`` says of its slice; None where it is no DICOM or no image."""
    # pydicom raises most of Python's exceptions on damaged files: whichever it is, the file is at fault.
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if "Rows" not in header:
            return None  # a report, a structure set, a DICOMDIR
        n_frames, n_samples = int(header.get("NumberOfFrames") or 1), int(header.get("SamplesPerPixel") or 1)
        has_lookup = "ModalityLUTSequence" in header
        modality = str(header.get("Modality") or "").strip() or None
    except InvalidDicomError:
        return None
    except Exception as error:
        raise UnreadableVolume(path.name, f"its DICOM header is damaged ({_reason(error)})") from error
    if n_frames != 1:
        raise UnsupportedVolume(
            path.name, f"it holds {n_frames} frames in one file", "Convert the series to NIfTI, with dcm2niix for one."
        )
    if n_samples != 1:
        raise UnsupportedVolume(path.name, "its voxels are colours (RGB)", "Send a CT or MR series.")
    if has_lookup:
        raise UnsupportedVolume(path.name, "its values go through a lookup table", "Convert the series to NIfTI.")
    try:
        directions = np.array([float(x) for x in header.ImageOrientationPatient]).reshape(2, 3)
        row_step_mm, column_step_mm = (float(x) for x in header.PixelSpacing)
        one = Slice(
            path=path,
            series_uid=str(header.get("SeriesInstanceUID") or ""),
            series_text=f"{modality or '?'} '{header.get('SeriesDescription') or ''}'",
            modality=modality,
            n_rows=int(header.Rows),
            n_columns=int(header.Columns),
            position_lps_mm=np.array([float(x) for x in header.ImagePositionPatient]).reshape(3),
            column_step_direction=directions[0],
            row_step_direction=directions[1],
            column_step_mm=column_step_mm,
            row_step_mm=row_step_mm,
            thickness_mm=float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or math.nan),
            slope=float(1 if header.get("RescaleSlope") is None else header.RescaleSlope),
            intercept=float(header.get("RescaleIntercept") or 0),
        )
    except Exception as error:
        raise UnreadableVolume(
            path.name,
            f"its place in the patient is missing or damaged ({_reason(error)})",
            "Send the original CT or MR series.",
        ) from error
    if not np.allclose(directions @ directions.T, np.eye(2), atol=0.01) or not np.isfinite(one.position_lps_mm).all():
        raise UnreadableVolume(
            path.name,
            "its orientation is not two perpendicular unit vectors, or its position is not finite",
            "Send the original CT or MR series.",
        )
    return one


def _check_one_series(slices: Sequence[Slice], folder: str) -> None:
    """Raises UnsupportedVolume unless all are of one series, size, spacing and orientation."""
    by_uid: dict[str, list[Slice]] = {}
    for one in slices:
        by_uid.setdefault(one.series_uid, []).append(one)
    if len(by_uid) > 1:
        listing = "; ".join(
            f"{uid or '(no UID)'}, {found[0].series_text}, {len(found)} files from '{found[0].path.name}'"
            for uid, found in by_uid.items()
        )
        raise UnsupportedVolume(folder, f"it holds {len(by_uid)} series: {listing}", "Put each into its own folder.")
    first = slices[0]
    for one in slices[1:]:
        if (one.n_rows, one.n_columns) != (first.n_rows, first.n_columns):
            what = "size (columns, rows)"
            ours, theirs = f"{(one.n_columns, one.n_rows)}", f"{(first.n_columns, first.n_rows)}"
        elif not np.allclose((one.column_step_mm, one.row_step_mm), (first.column_step_mm, first.row_step_mm), 1e-4):
            what = "pixel spacing"
            ours, theirs = (
                f"{one.column_step_mm} x {one.row_step_mm} mm",
                (f"{first.column_step_mm} x {first.row_step_mm} mm"),
            )
        elif not (
            np.allclose(one.column_step_direction, first.column_step_direction, atol=1e-3)
            and np.allclose(one.row_step_direction, first.row_step_direction, atol=1e-3)
        ):
            what = "orientation"
            ours = f"{(*one.column_step_direction.tolist(), *one.row_step_direction.tolist())}"
            theirs = f"{(*first.column_step_direction.tolist(), *first.row_step_direction.tolist())}"
        else:
            continue
        raise UnsupportedVolume(
            folder,
            f"its slices differ in {what}: '{one.path.name}' has {ours}, '{first.path.name}' has {theirs}",
            "Remove scout views and slices of other acquisitions.",
        )


def _check_steps(slices: Sequence[Slice], folder: str) -> npt.NDArray[np.float64]:
    """The step from slice to slice (LPS, mm) of ``slices`` sorted along their normal.

    Raises:
        UnsupportedVolume: two slices in one place, a gap, uneven steps, or no thickness for a single slice.
    """
    first, last = slices[0], slices[-1]
    if len(slices) == 1:
        if not first.thickness_mm > 0:
            raise UnsupportedVolume(folder, "it is a single slice of unknown thickness", "Send the whole series.")
        return first.normal * first.thickness_mm
    # Along one normal for all: positions a kilometre off centre would turn its rounding into millimetres.
    along_mm = np.array([one.position_lps_mm @ first.normal for one in slices])
    typical_mm = float(np.median(np.diff(along_mm)))
    for (near, far), step_mm in zip(pairwise(slices), np.diff(along_mm), strict=True):
        where = f"'{near.path.name}' and '{far.path.name}'"
        if step_mm < DUPLICATE_MM:
            raise UnsupportedVolume(
                folder,
                f"{where} lie at the same place ({near.along_normal_mm:.2f} mm along the normal)",
                "Keep one copy of each slice, of one phase.",
            )
        if abs(step_mm - typical_mm) > UNEVEN_SHARE_OF_STEP * typical_mm:
            raise UnsupportedVolume(
                folder,
                f"{where} lie {step_mm:.2f} mm apart, where slices usually lie {typical_mm:.2f} mm apart",
                "Send the whole series, without missing or additional slices.",
            )
    step_lps_mm = (last.position_lps_mm - first.position_lps_mm) / (len(slices) - 1)
    for k, one in enumerate(slices):
        off_mm = float(np.linalg.norm(one.position_lps_mm - first.position_lps_mm - k * step_lps_mm))
        if off_mm > 0.5 * min(typical_mm, one.column_step_mm, one.row_step_mm) and off_mm > 0.1:
            raise UnsupportedVolume(
                folder,
                f"'{one.path.name}' lies {off_mm:.2f} mm off the line through the first and last slice",
                "Send slices of one acquisition, in even steps.",
            )
    return step_lps_mm


def _affine(first: Slice, step_lps_mm: npt.NDArray[np.float64]) -> Affine:
    """Voxel index (i, j, k) to mm in RAS+."""
    lps = np.eye(4)
    lps[:3, 0] = first.column_step_direction * first.column_step_mm
    lps[:3, 1] = first.row_step_direction * first.row_step_mm
    lps[:3, 2] = step_lps_mm
    lps[:3, 3] = first.position_lps_mm
    return np.diag((-1.0, -1.0, 1.0, 1.0)) @ lps


def _read_values(slices: Sequence[Slice]) -> tuple[npt.NDArray[Any], float, float]:
    """(values (k, j, i), slope, intercept): physical value = ``values * slope + intercept``."""
    slope, intercept = slices[0].slope, slices[0].intercept
    is_whole = all(
        one.slope.is_integer() and one.intercept.is_integer() and abs(one.slope) < 2**14 and abs(one.intercept) < 2**30
        for one in slices
    )
    is_same = all((one.slope, one.intercept) == (slope, intercept) for one in slices)

    def plane_of(one: Slice) -> npt.NDArray[Any]:
        stored = _read_pixels(one)
        integer = np.int32 if stored.dtype.itemsize <= 2 else np.int64
        if is_whole:  # every CT: whole HU, as they are
            return stored.astype(integer) * int(one.slope) + int(one.intercept)
        if is_same:  # most MR: one fractional scale over the stored values, exactly
            return stored.astype(integer)
        return (stored * one.slope + one.intercept).astype(np.float32)  # PET, each slice on its own scale: rounded

    planes = (_narrowed(plane_of(one)) for one in slices)
    first = next(planes)  # a header that promises more than its file holds fails here, before the allocation
    values = np.empty((len(slices), *first.shape), first.dtype)
    values[0] = first
    for k, plane in enumerate(planes, start=1):
        if not np.can_cast(plane.dtype, values.dtype):
            values = values.astype(np.promote_types(plane.dtype, values.dtype))
        values[k] = plane
    return (values, slope, intercept) if is_same and not is_whole else (values, 1.0, 0.0)


def _narrowed(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``plane`` as int16 where that holds all of it, as of every CT: it takes a third of the memory then."""
    int16 = np.iinfo(np.int16)
    fits = plane.dtype.kind == "i" and int(plane.min()) >= int16.min and int(plane.max()) <= int16.max
    return plane.astype(np.int16) if fits else plane


def _read_pixels(one: Slice) -> npt.NDArray[Any]:
    """The stored pixels (j, i) of ``one``."""
    try:
        pixels: npt.NDArray[Any] = pydicom.dcmread(one.path).pixel_array
    except Exception as error:  # see _read_header; and each codec adds its own
        raise UnreadableVolume(one.path.name, f"its pixels cannot be decoded ({_reason(error)})") from error
    if pixels.shape != (one.n_rows, one.n_columns):
        raise UnreadableVolume(one.path.name, f"its pixels decode to {pixels.shape}, not {(one.n_rows, one.n_columns)}")
    return pixels


def _reason(error: Exception) -> str:
    """``error`` in words, without the folder that the message of an OSError shows."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
