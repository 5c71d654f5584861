"""What a Volume refuses to hold, and what it knows of itself."""

from __future__ import annotations

import numpy as np
import pytest

from deepgrow3d_app.errors import UnsupportedVolume
from deepgrow3d_app.volume.volume import Volume

VOXELS = np.zeros((2, 3, 4), np.int16)


def test_shape_and_spacing(oblique_affine):
    volume = Volume(VOXELS, oblique_affine)
    assert volume.shape == (2, 3, 4)
    assert volume.spacing_mm == pytest.approx((0.7, 0.9, 2.5))


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.zeros((2, 3), np.int16), "2 dimensions"),
        (np.zeros((2, 0, 4), np.int16), "no voxels"),
        (np.zeros((2, 3, 4), np.float32), "float32"),
    ],
)
def test_arrays_that_are_refused(array, fault):
    with pytest.raises(UnsupportedVolume, match=rf"'scan.nii' cannot be used: .*{fault}"):
        Volume(array, np.eye(4), name="scan.nii")


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (((1, 0, 0), (0, 1, 0), (0, 0, np.nan)), "not a finite"),
        (((1, 0, 0), (0, 1, 0), (0, 0, 0)), "singular or out of range"),
        (((1, 0, 0), (2, 0, 0), (0, 0, 1)), "singular"),
        (((1, 0, 0), (0, 1, 0), (1, 1, 0)), "singular"),
        (((1e20, 0, 0), (0, 1e20, 0), (0, 0, 1e20)), "out of range"),
        (((1e-3, 0, 0), (1e-3, 1e-9, 0), (0, 0, 500)), "singular"),
    ],
)
def test_affines_that_are_refused(columns, fault):
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    with pytest.raises(UnsupportedVolume, match=fault):
        Volume(VOXELS, affine)


def test_small_voxels_are_accepted():
    assert Volume(VOXELS, np.diag((0.01, 0.01, 0.01, 1.0))).spacing_mm == pytest.approx((0.01,) * 3)


def test_a_few_dark_voxels_make_no_ct_of_an_mr():
    values = np.random.default_rng(0).integers(0, 4000, (60, 60, 40)).astype(np.int16)
    values[3, 4, 5] = values[30, 40, 20] = -250
    assert not Volume(values, np.eye(4)).is_ct
    values[:, :, 0] = -1000
    assert Volume(values, np.eye(4)).is_ct


@pytest.mark.parametrize(("modality", "is_ct"), [("CT", True), ("MR", False), ("OT", False), (None, False)])
def test_a_known_modality_is_believed(modality, is_ct):
    soft_tissue = np.array([20, 80], np.int16).reshape(1, 1, 2)
    assert Volume(soft_tissue, np.eye(4), modality=modality).is_ct is is_ct


@pytest.mark.parametrize(
    ("slope", "intercept", "is_ct"), [(1.0, -1024.0, True), (1.0, 0.0, False), (-1.0, 0.0, True), (0.1, -100.0, False)]
)
def test_is_ct_looks_at_physical_values(slope, intercept, is_ct):
    array = np.array([0, 500], np.int16).reshape(1, 1, 2)
    assert Volume(array, np.eye(4), slope, intercept).is_ct is is_ct


@pytest.mark.parametrize("holds_hu", [True, False])
def test_is_ct_need_not_be_found_out_twice(holds_hu):
    assert Volume(VOXELS, np.eye(4), holds_hu=holds_hu).is_ct is holds_hu
    assert Volume(VOXELS, np.eye(4), modality="MR", holds_hu=holds_hu).is_ct is False
