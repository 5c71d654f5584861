"""One prepared case on disk: arrays that are mapped into memory instead of read, and what is known of them.

    image.npy     int16 (i, j, k), C order, axes in RAS order
    labels.npy    uint8 (i, j, k), on the same grid
    case.json     {"affine": 4x4, "slope": .., "intercept": .., "modality": "CT" | .. | null, "image_name": ..,
                   "structures": {NAME: V}, "made_from": digest, "remarks": [..]}

Bare ``.npy``: a random patch of a compressed file costs the decompression of the whole file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.cases.labelled_case import LabelledCase
from deepgrow3d_app.errors import LabelMismatch, UnreadableVolume
from deepgrow3d_app.volume.volume import Volume

IMAGE_FILE = "image.npy"
LABELS_FILE = "labels.npy"
CASE_FILE = "case.json"
REMEDY = "Delete its folder and prepare the cases again."


def read_prepared_case(folder: Path, name: str) -> LabelledCase:
    """The case in ``folder``, its arrays mapped read-only: voxels are read from disk where they are looked at.

    Raises:
        UnreadableVolume: a file is missing or damaged.
        UnsupportedVolume: an affine that no image can have.
        LabelMismatch: the arrays differ in shape.
    """
    file = folder / CASE_FILE
    image, labels = _mapped(folder / IMAGE_FILE, np.int16), _mapped(folder / LABELS_FILE, np.uint8)
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        affine = np.array(known["affine"], dtype=np.float64)
        volume = Volume(
            image, affine, float(known["slope"]), float(known["intercept"]), str(known["image_name"]), known["modality"]
        )
        structures = {str(structure): int(value) for structure, value in known["structures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableVolume(str(file), f"{type(error).__name__}: {error}", REMEDY) from error
    if image.shape != labels.shape:
        raise LabelMismatch(f"'{folder / LABELS_FILE}' has the shape {labels.shape}, its image {image.shape}. {REMEDY}")
    return LabelledCase(name, volume, labels, structures)


def write_prepared_case(case: LabelledCase, folder: Path, made_from: str, remarks: Sequence[str]) -> None:
    """Write ``case`` into ``folder``, and wait until it is safely on disk.

    Args:
        case: axes in RAS order.
        folder: existing and empty, not yet under the name that readers look for.
        made_from, remarks: see :func:`remarks_if_made_from`.

    Raises:
        OSError: the disk is full.
    """
    known = {
        "affine": case.volume.affine.tolist(),
        "slope": case.volume.slope,
        "intercept": case.volume.intercept,
        # Decided here, where all voxels are in memory: asking a mapped volume would read it from disk.
        "modality": case.volume.modality or ("CT" if case.volume.is_ct else None),
        "image_name": case.volume.name,
        "structures": case.structures,
        "made_from": made_from,
        "remarks": list(remarks),
    }
    for name, array in ((IMAGE_FILE, case.volume.array), (LABELS_FILE, case.labels)):
        with (folder / name).open("wb") as file:
            _write_array(array, file)
            file.flush()
            os.fsync(file.fileno())
    with (folder / CASE_FILE).open("w", encoding="utf-8") as text:
        json.dump(known, text, indent=1)
        text.flush()
        os.fsync(text.fileno())


def remarks_if_made_from(folder: Path, made_from: str) -> tuple[str, ...] | None:
    """What was remarked on the case in ``folder`` when it was made from the same files in the same way.

    Args:
        folder: of a prepared case, or not there.
        made_from: digest of the files and of what was done to them.

    Returns:
        ``None`` where there is no such case, or it was made from something else.
    """
    try:
        known = json.loads((folder / CASE_FILE).read_text(encoding="utf-8"))
        return tuple(map(str, known["remarks"])) if known["made_from"] == made_from else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_array(array: npt.NDArray[Any], file: BinaryIO) -> None:
    """What ``np.save`` writes, but that a full disk is told as such: by "512 requested and 0 written" it is not."""
    plain = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(plain))
    file.write(plain.data)


def _mapped(file: Path, dtype: type[np.generic]) -> npt.NDArray[Any]:
    try:
        array = np.load(file, mmap_mode="r")
    except Exception as error:  # NumPy parses a header as Python, and raises whatever a damaged one makes of that
        raise UnreadableVolume(str(file), f"{type(error).__name__}: {error}", REMEDY) from error
    if array.dtype != dtype or array.ndim != 3:
        raise UnreadableVolume(
            str(file), f"it holds {array.dtype} {array.shape}, not {np.dtype(dtype)} (i, j, k)", REMEDY
        )
    return np.asarray(array)
