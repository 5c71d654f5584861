"""Labels on the grid of their image, and labels that only seem to be."""

from __future__ import annotations

import numpy as np
import pytest

from deepgrow3d_app.errors import LabelMismatch
from deepgrow3d_app.volume.grid import check_grid, distance_voxels
from deepgrow3d_app.volume.volume import Volume


@pytest.fixture
def image(oblique_affine) -> Volume:
    return Volume(np.zeros((11, 21, 31), np.int16), oblique_affine, name="ct.nii.gz")


def test_the_same_grid_with_a_rounded_header_is_the_same(image):
    check_grid(image.shape, image.affine, image)
    check_grid(image.shape, np.round(image.affine, 3), image)


def test_another_shape_is_refused_by_name(image):
    told = r"'labels.nii.gz' has 11 x 21 x 30 voxels, its image 'ct.nii.gz' has 11 x 21 x 31"
    with pytest.raises(LabelMismatch, match=told):
        check_grid((11, 21, 30), image.affine, image, "'labels.nii.gz'")


@pytest.mark.parametrize("flip", range(3))
def test_the_same_shape_mirrored_is_refused(image, flip):
    mirror = np.eye(4)
    mirror[flip, flip], mirror[flip, 3] = -1, image.shape[flip] - 1
    with pytest.raises(LabelMismatch, match="The label lies up to"):
        check_grid(image.shape, image.affine @ mirror, image)


def test_distance_is_in_voxels_of_the_image(image):
    moved = image.affine @ np.block([[np.eye(3), np.array([[0], [0], [2]])], [0, 0, 0, 1]])
    assert distance_voxels(moved, np.zeros(3), image.shape, image) == pytest.approx(2)
    assert distance_voxels(moved, np.array((0.0, 0.0, 2.0)), image.shape, image) == pytest.approx(0, abs=1e-9)
    stretched = image.affine @ np.diag((1.01, 1, 1, 1))
    assert distance_voxels(stretched, np.zeros(3), image.shape, image) == pytest.approx(0.1)
