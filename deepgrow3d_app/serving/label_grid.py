"""A label that a viewer sends, brought onto the grid of its image or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepgrow3d_app.errors import LabelMismatch
from deepgrow3d_app.volume.files import extension_of, read_mask
from deepgrow3d_app.volume.geometry import Affine
from deepgrow3d_app.volume.grid import TOLERANCE_VOXELS, check_grid, distance_voxels, times
from deepgrow3d_app.volume.volume import Mask, Volume

RAW_EXTENSION = ".bin"


def read_label(path: Path, image: Volume) -> Mask:
    """The label map at ``path`` on the grid of ``image``: uint8 (i, j, k), shape and axes of the image.

    Args:
        path: ``.nii``, ``.nii.gz`` or ``.nrrd`` on the image's grid; a Slicer segmentation
            (``.seg.nrrd``), which may cover a part of it; or ``.bin``, bare bytes as OHIF sends
            them, one for each voxel, i running fastest.
        image: what the label was drawn on.

    Raises:
        UnreadableVolume, UnsupportedVolume: not a label map.
        LabelMismatch: a label map of another grid.
    """
    if path.suffix == RAW_EXTENSION:
        return _raw_label(path, image)
    mask, affine = read_mask(path)
    if extension_of(path.name) == ".seg.nrrd":
        return _pasted(mask, affine, image)
    check_grid(mask.shape, affine, image)
    return mask


def _raw_label(path: Path, image: Volume) -> Mask:
    n_bytes = path.stat().st_size
    if n_bytes != image.array.size:
        raise LabelMismatch(
            f"The label has {n_bytes} bytes, its image '{image.name}' has {image.array.size} voxels "
            f"({times(image.shape)}). Send one byte for each voxel, i running fastest."
        )
    return np.fromfile(path, np.uint8).reshape(image.shape, order="F")


def _pasted(part: Mask, affine: Affine, image: Volume) -> Mask:
    """``part``, a cut-out of the image's grid, with background around it."""
    offset = np.rint((np.linalg.inv(image.affine) @ affine)[:3, 3])
    distance = distance_voxels(affine, offset, part.shape, image)
    if distance > TOLERANCE_VOXELS:
        raise LabelMismatch(
            f"The segmentation lies up to {distance:.2g} voxels from the grid of its image '{image.name}', over the "
            f"tolerance of {TOLERANCE_VOXELS}. Set its reference geometry to the image, then save it again."
        )
    starts = [int(start) for start in offset]
    label = np.zeros(image.shape, np.uint8)
    inside = tuple(slice(max(s, 0), max(s + n, 0)) for s, n in zip(starts, part.shape, strict=True))
    covered = label[inside]
    taken = tuple(slice(max(-s, 0), max(-s, 0) + n) for s, n in zip(starts, covered.shape, strict=True))
    covered[...] = part[taken]
    if np.count_nonzero(covered) != np.count_nonzero(part):
        raise LabelMismatch(
            f"The segmentation has voxels outside its image '{image.name}' of {times(image.shape)} voxels. "
            "Erase what lies outside the image."
        )
    return label
