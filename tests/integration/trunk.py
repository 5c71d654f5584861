"""The study ``ct-trunk``: where to click in it, and masks that must lie on its grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from deepgrow3d_app.click.simulator import ClickSimulator

# MONAI Label's client leaves its connections and files to the garbage collector.
leaky_client = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
IMAGE = "ct-trunk"


def deepest_voxel(truth: npt.NDArray[np.bool_]) -> list[int]:
    """Where the protocol clicks first, on the grid of ct-trunk."""
    click = ClickSimulator((3.0, 3.0, 3.0)).next_click(truth, np.zeros_like(truth))
    assert click is not None
    return list(click.index)


def assert_same_grid(file: Path, image: Path) -> npt.NDArray[np.uint8]:
    """The voxels (i, j, k) of the mask ``file``, which must be a binary uint8 image on the grid of ``image``."""
    mask, expected = sitk.ReadImage(file), sitk.ReadImage(image)
    assert mask.GetSize() == expected.GetSize()
    assert np.allclose(mask.GetSpacing(), expected.GetSpacing(), atol=1e-5)
    assert np.allclose(mask.GetOrigin(), expected.GetOrigin(), atol=1e-3)
    assert np.allclose(mask.GetDirection(), expected.GetDirection(), atol=1e-6)
    voxels: npt.NDArray[np.uint8] = sitk.GetArrayFromImage(mask).transpose()
    assert voxels.dtype == np.uint8
    assert voxels.max() == 1
    return voxels
