"""One 3-D scalar image in memory, as the viewer stores it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.errors import UnsupportedVolume
from deepgrow3d_app.volume.geometry import Affine, Shape, Spacing, spacing_mm

Mask = npt.NDArray[np.uint8]
"""A segmentation on a volume's grid: uint8 (i, j, k), 0 outside and 1 (or a label value) inside."""

CT_AIR_THRESHOLD_HU = -200
CT_AIR_SHARE = 2e-5
"""Of a CT, more voxels than this are air or lung. In an MR, resampling may leave a few that are far below zero."""
VOXEL_EDGE_LIMITS_MM = (1e-4, 1e3)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels on the stored grid, and where they lie.

    Attributes:
        array: int16 (i, j, k), in the axis order of the file; treat it as read-only.
        affine: float64 (4, 4), voxel index to mm in RAS+ world coordinates.
        slope, intercept: physical value (HU in a CT) = ``array * slope + intercept``. (1, 0) where
            the file holds integers within int16; else chosen so that the file's range fills int16
            (:func:`deepgrow3d_app.volume.stored.to_volume` says what becomes of absurd outliers).
        name: what messages call it, usually the file name.
        modality: as DICOM writes it (``CT``, ``MR``, ``PT``); None where the file does not say, as NIfTI and NRRD.
        holds_hu: what :attr:`is_ct` found before, so that it need not look at all voxels again; None to let it look.

    Raises:
        UnsupportedVolume: not 3-D, empty, not int16, or an affine that :func:`check_affine` refuses.
    """

    array: npt.NDArray[np.int16]
    affine: Affine
    slope: float = 1.0
    intercept: float = 0.0
    name: str = "volume"
    modality: str | None = None
    holds_hu: bool | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise UnsupportedVolume(
                self.name, f"it has {self.array.ndim} dimensions {self.array.shape}", "Send one 3-D image."
            )
        if self.array.size == 0:
            raise UnsupportedVolume(
                self.name, f"it has no voxels (shape {self.array.shape})", "Send a non-empty image."
            )
        if self.array.dtype != np.int16:
            raise UnsupportedVolume(self.name, f"its voxels are {self.array.dtype}", "Convert them to int16 first.")
        check_affine(self.affine, self.name)

    @property
    def shape(self) -> Shape:
        """Number of voxels (i, j, k)."""
        i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel edge lengths (di, dj, dk) in mm."""
        return spacing_mm(self.affine)

    @cached_property
    def is_ct(self) -> bool:
        """Whether values are Hounsfield units.

        Where the modality is unknown, values decide: only a CT has voxels of air far below zero.
        """
        if self.modality is not None:
            return self.modality == "CT"
        if self.holds_hu is not None:
            return self.holds_hu
        threshold = (CT_AIR_THRESHOLD_HU - self.intercept) / self.slope
        is_air = self.array <= threshold if self.slope > 0 else self.array >= threshold
        return int(np.count_nonzero(is_air)) > CT_AIR_SHARE * self.array.size


def check_affine(affine: Affine, name: str) -> None:
    """Refuse an affine that no image of a patient can have, for the volume or file called ``name``.

    The bounds are far outside medicine: they keep what is computed from a damaged header finite.

    Raises:
        UnsupportedVolume: not a finite 4x4 matrix, an origin beyond a kilometre, a voxel edge outside
            ``VOXEL_EDGE_LIMITS_MM``, or axes that are parallel or lie in one plane.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise UnsupportedVolume(name, "its affine is not a finite 4x4 matrix over (0, 0, 0, 1)", "Repair the header.")
    least, greatest = VOXEL_EDGE_LIMITS_MM
    if not all(least <= edge <= greatest for edge in spacing_mm(affine)) or np.abs(affine[:3, 3]).max() > 1e6:
        raise UnsupportedVolume(
            name,
            f"its affine is singular or out of range (voxel edges {spacing_mm(affine)} mm, origin {affine[:3, 3]} mm)",
            f"Repair the header: a voxel edge lies between {least} and {greatest} mm.",
        )
    # The volume of the parallelepiped of the axis directions: 1 where they are orthogonal.
    if abs(float(np.linalg.det(affine[:3, :3] / np.array(spacing_mm(affine))))) < 1e-3:
        raise UnsupportedVolume(
            name, "its affine is singular (two axes are parallel, or three lie in a plane)", "Repair the header."
        )
