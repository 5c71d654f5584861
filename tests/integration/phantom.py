"""Images and labels whose every voxel is known, and the files that hold them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A small generated CT: an ellipsoid of soft tissue in fat, on an oblique, anisotropic grid.

    Attributes:
        file: the image, .nii.gz.
        tissue: bool (i, j, k), the ellipsoid.
        affine: (4, 4), voxel index to mm in RAS+ world coordinates.
        label: uint8 (i, j, k), values 0 to 4 without any symmetry.
    """

    file: Path
    tissue: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    label: npt.NDArray[np.uint8]

    @property
    def centre(self) -> list[int]:
        """A voxel inside the ellipsoid."""
        return [round(float(indices.mean())) for indices in np.nonzero(self.tissue)]

    @property
    def label_file(self) -> bytes:
        """``label`` on the grid of the image, .nii.gz."""
        return nifti(self.label, self.affine)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The labels that belong to the study ``ct-trunk``.

    Attributes:
        labels: (i, j, k), a value for each structure.
        values: the value of each structure.
        affine: (4, 4), voxel index to mm in RAS+ world coordinates.
    """

    labels: npt.NDArray[np.uint8]
    values: Mapping[str, int]
    affine: npt.NDArray[np.float64]

    def structure(self, name: str) -> npt.NDArray[np.bool_]:
        """One structure, (i, j, k)."""
        return self.labels == self.values[name]


def nifti(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """The bytes of a .nii.gz file: the same ones for the same voxels."""
    return gzip.compress(nib.Nifti1Image(voxels, affine).to_bytes(), 1, mtime=0)


def voxels_of(content: bytes) -> npt.NDArray[Any]:
    """The voxels of a .nii.gz file."""
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
