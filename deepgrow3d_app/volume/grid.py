"""Whether a label lies on the grid of its image: equal shapes are not enough, the places have to agree."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.errors import LabelMismatch
from deepgrow3d_app.volume.geometry import Affine
from deepgrow3d_app.volume.volume import Volume

TOLERANCE_VOXELS = 0.25
"""How far a corner of the label may lie from that of the image: headers are rounded, grids are not."""


def check_grid(shape: tuple[int, ...], affine: Affine, image: Volume, label: str = "The label") -> None:
    """Refuse a label that does not lie on the grid of ``image``.

    Args:
        shape: of the label, (i, j, k).
        affine: of the label, voxel index to mm in RAS+.
        image: what the label was drawn on.
        label: what the message calls the label, at the beginning of a sentence.

    Raises:
        LabelMismatch: another shape, or a corner further than ``TOLERANCE_VOXELS`` from the image's.
    """
    if shape != image.shape:
        raise LabelMismatch(
            f"{label} has {times(shape)} voxels, its image '{image.name}' has {times(image.shape)}. "
            "Send a label on the grid of the image."
        )
    distance = distance_voxels(affine, np.zeros(3), image.shape, image)
    if distance > TOLERANCE_VOXELS:
        raise LabelMismatch(
            f"{label} lies up to {distance:.2g} voxels from its image '{image.name}', over the tolerance of "
            f"{TOLERANCE_VOXELS}: its orientation, spacing or origin differs. Save it with the geometry of the image."
        )


def distance_voxels(affine: Affine, offset: npt.NDArray[np.float64], shape: tuple[int, ...], image: Volume) -> float:
    """How far, in voxels of ``image``, the corners of a label of ``shape`` lie from ``offset`` on its grid."""
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*((0.0, n - 1.0) for n in shape))]).T
    placed = (np.linalg.inv(image.affine) @ affine @ corners)[:3].T
    expected = corners[:3].T + offset
    return float(np.linalg.norm(placed - expected, axis=1).max())


def times(shape: tuple[int, ...]) -> str:
    """``shape`` in words for people: ``512 x 512 x 90``."""
    return " x ".join(map(str, shape))
