"""Voxels as a file stores them, and their way to int16 (an image) or uint8 (labels), exactly where possible."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.errors import UnsupportedVolume
from deepgrow3d_app.volume.geometry import Affine, Shape
from deepgrow3d_app.volume.volume import Mask, Volume, check_affine

MAX_VOXELS = 2**30
"""More voxels than this are refused before they are allocated: 1024 x 1024 x 1024, 2 GiB as int16."""

MAX_AXIS_VOXELS = 32767
"""The longest axis that a NIfTI-1 header, and so a mask for this image, can state."""

BLOCK_VOXELS = 1 << 16
"""So many are converted at a time that the temporaries stay in the processor's cache: a fourth of the time."""
SAMPLED_VOXELS = 1 << 20
BULK_PERCENTILES = (0.1, 99.9)
MIN_BULK_STEPS = 1000
BULK_MARGIN = 10
"""Where outliers are clipped: this many times the bulk's range is kept below it and above it."""
FILL_VALUE = 1e30
"""No measurement is as large: a mark for "no value here", which does not count as a part of the bulk."""
LABEL_ROUNDING = 1e-4
"""How far a scaled label may lie off a whole number: scales are stored as 32-bit numbers."""
INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, eq=False)
class StoredVoxels:
    """What a file holds, before any conversion.

    Attributes:
        values: 1-D, of any real dtype and byte order; i runs fastest, then j, then k.
        shape: number of voxels (i, j, k).
        affine: float64 (4, 4), voxel index to mm in RAS+ world coordinates.
        slope, intercept: physical value = ``values * slope + intercept``.
    """

    values: npt.NDArray[Any]
    shape: Shape
    affine: Affine
    slope: float = 1.0
    intercept: float = 0.0


def check_shape(sizes: tuple[int, ...], file: str) -> Shape:
    """``sizes`` (i, j, k, ...) as (i, j, k); call it before allocating what a header promises.

    Raises:
        UnsupportedVolume: not three axes (further ones of a single step are dropped), an empty axis,
            or more voxels than ``MAX_VOXELS``.
    """
    if len(sizes) < 3 or any(n != 1 for n in sizes[3:]):
        raise UnsupportedVolume(
            file, f"it has {len(sizes)} dimensions {sizes}", "Send one 3-D image: a single channel and time point."
        )
    i, j, k = sizes[:3]
    if min(i, j, k) < 1:
        raise UnsupportedVolume(file, f"it has no voxels (shape {(i, j, k)})", "Send a non-empty image.")
    if max(i, j, k) > MAX_AXIS_VOXELS or i * j * k > MAX_VOXELS:
        raise UnsupportedVolume(
            file,
            f"its header claims {i} x {j} x {k} voxels",
            f"Crop or resample it to at most {MAX_VOXELS} voxels, and {MAX_AXIS_VOXELS} along an axis.",
        )
    return i, j, k


def check_dtype(dtype: np.dtype[Any], file: str) -> None:
    """Raises UnsupportedVolume unless ``dtype`` is integer or floating with at most 64 bits."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        what = {"c": "complex numbers", "V": "colours (RGB)"}.get(dtype.kind, f"of type {dtype}")
        raise UnsupportedVolume(file, f"its voxels are {what}", "Send an image with one real number per voxel.")


def to_volume(stored: StoredVoxels, name: str, modality: str | None = None) -> Volume:
    """``stored`` as a :class:`Volume`.

    Integers that fit int16 stay as they are, whatever type the file gave them (a CT saved as float
    included), and so does the file's slope and intercept. Integers that span at most 65535 steps are
    shifted, and the intercept takes up the shift: both are exact. Anything else is rounded to the
    65536 steps between its least and its greatest value.

    Where that would leave the bulk of the voxels (0.1 % to 99.9 % of them) fewer than 1000 steps,
    as a single voxel of 1e7 does, values further from the bulk than ten times its range are clipped.

    Raises:
        UnsupportedVolume: NaN or infinite voxels, a value range or an affine that cannot be used.
    """
    array, offset, step = _to_int16(stored.values, name)
    slope = stored.slope * step
    intercept = stored.slope * offset + stored.intercept
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise UnsupportedVolume(
            name,
            f"its scaling is unusable (slope {slope}, intercept {intercept})",
            "Save it again with values in the scanner's units.",
        )
    return Volume(array.reshape(stored.shape, order="F"), stored.affine, slope, intercept, name, modality)


def to_mask(stored: StoredVoxels, name: str) -> Mask:
    """``stored`` as label values: uint8 (i, j, k).

    A label map may have been scaled to whole numbers of its own, as nibabel does with labels in floating point (a
    value then comes back within half a step), and is rounded.

    Raises:
        UnsupportedVolume: a value that is not a whole number from 0 to 255.
    """
    check_affine(stored.affine, name)
    labels = np.empty(stored.values.size, np.uint8)
    is_scaled = (stored.slope, stored.intercept) != (1.0, 0.0)
    tolerance = 0.0
    if is_scaled:
        tolerance = max(LABEL_ROUNDING, abs(stored.slope) / 2 if abs(stored.slope) < 1 else 0.0)
    for block in _blocks(stored.values.size):
        values = stored.values[block]
        if is_scaled:
            with np.errstate(over="ignore", invalid="ignore"):
                values = values.astype(np.float64) * stored.slope + stored.intercept
        # A comparison with NaN is false: NaN is no label either.
        is_label = (values >= -tolerance) & (values <= 255 + tolerance)
        if values.dtype.kind == "f":
            is_label &= np.abs(values - np.rint(values)) <= tolerance
        if not is_label.all():
            culprit = values[np.argmin(is_label)]
            raise UnsupportedVolume(
                name,
                f"it holds the value {culprit.item()!r}",
                "A label map holds whole numbers from 0 (background) to 255.",
            )
        labels[block] = np.rint(values) if values.dtype.kind == "f" else values
    return labels.reshape(stored.shape, order="F")


def _to_int16(values: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.int16], float, float]:
    """(int16 array, offset, step) such that ``values = array * step + offset``, apart from what is clipped."""
    if values.dtype == np.int16:  # native byte order: no copy
        return values, 0.0, 1.0
    least, greatest, is_whole = _range(values, name)
    fits_shifted = is_whole and int(greatest) - int(least) <= 65535
    steps = np.empty(values.size, np.int16)
    if fits_shifted and least >= INT16.min and greatest <= INT16.max:
        for block in _blocks(values.size):
            steps[block] = values[block]
        return steps, 0.0, 1.0
    if fits_shifted:
        base = np.array(least, values.dtype)  # same type: a difference of 64-bit integers stays exact
        for block in _blocks(values.size):
            steps[block] = (values[block] - base).astype(np.int32) + INT16.min
        return steps, float(int(least) - INT16.min), 1.0
    low, high = _range_to_keep(values, float(least), float(greatest))
    step = (high - low) / 65535
    if not math.isfinite(step):
        raise UnsupportedVolume(
            name, f"its values span {low:g} to {high:g}", "Save it again with values in the scanner's units."
        )
    if step < sys.float_info.min:  # all alike, or as good as alike
        step = 1.0
    if is_whole and step < 1:  # clipped whole numbers that now fit: exact
        low, step = float(math.floor(low)), 1.0
    for block in _blocks(values.size):
        kept = np.clip(values[block].astype(np.float64), low, high)
        steps[block] = np.clip(np.rint((kept - low) / step), 0, 65535).astype(np.int32) + INT16.min
    return steps, low - INT16.min * step, step


def _range_to_keep(values: npt.NDArray[Any], least: float, greatest: float) -> tuple[float, float]:
    """(least, greatest), or a part of it where outliers would leave the bulk of ``values`` too few steps."""
    sample = values
    if values.size > SAMPLED_VOXELS:  # at random: an even stride may fall on one column of each slice, all of it air
        sample = values[np.random.default_rng(0).integers(0, values.size, SAMPLED_VOXELS)]
    sample = sample.astype(np.float64)
    sample = sample[np.abs(sample) < FILL_VALUE]
    if sample.size == 0:
        return least, greatest
    low, high = (float(value) for value in np.percentile(sample, BULK_PERCENTILES))
    bulk = high - low
    if bulk == 0 or bulk / MIN_BULK_STEPS >= (greatest / 65535 - least / 65535):
        return least, greatest
    return max(least, low - BULK_MARGIN * bulk), min(greatest, high + BULK_MARGIN * bulk)


def _range(values: npt.NDArray[Any], name: str) -> tuple[Any, Any, bool]:
    """(least, greatest, whether all are whole numbers); raises UnsupportedVolume on NaN and infinity."""
    if values.dtype.kind != "f":
        return values.min(), values.max(), True
    leasts, greatests, is_whole, n_bad = [], [], True, 0
    for block in _blocks(values.size):
        part = values[block]
        n_bad += part.size - int(np.count_nonzero(np.isfinite(part)))
        leasts.append(part.min())
        greatests.append(part.max())
        is_whole = is_whole and bool((part == np.rint(part)).all())
    if n_bad:
        raise UnsupportedVolume(
            name,
            f"{n_bad} of its {values.size} voxels are NaN or infinite",
            "Replace them, by -1024 in a CT or by 0 in an MR.",
        )
    return min(leasts), max(greatests), is_whole


def _blocks(n_voxels: int) -> Iterator[slice]:
    """Slices that cover ``n_voxels``: temporaries stay small beside the volume."""
    for start in range(0, n_voxels, BLOCK_VOXELS):
        yield slice(start, start + BLOCK_VOXELS)
