"""Masks through NIfTI and NRRD: the same voxels in the same place, for others too."""

from __future__ import annotations

import itertools
import os
import stat

import numpy as np
import pytest
import SimpleITK as sitk

from deepgrow3d_app.errors import UnsupportedVolume
from deepgrow3d_app.volume.files import encode_mask, read_mask, write_mask
from tests.unit.volume.conftest import itk_affine, load_nifti, save_nifti

AXIS_AFFINES = [
    np.block([[np.eye(3)[list(axes)] * signs * (0.7, 1.25, 5.0), np.array([[-11.5], [22.25], [-33.0]])], [0, 0, 0, 1]])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.fixture
def mask() -> np.ndarray:
    """uint8 (4, 5, 6) without any symmetry."""
    return np.random.default_rng(0).integers(0, 4, (4, 5, 6)).astype(np.uint8)


@pytest.fixture
def sheared_affine(oblique_affine) -> np.ndarray:
    """A tilted gantry: the slices drift sideways."""
    shear = np.eye(4)
    shear[1, 2] = 0.3
    return oblique_affine @ shear


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("affine", AXIS_AFFINES)
def test_masks_come_back_on_every_grid(tmp_path, mask, affine, extension):
    write_mask(mask, affine, tmp_path / f"m{extension}")
    again, affine_again = read_mask(tmp_path / f"m{extension}")
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, mask)
    np.testing.assert_allclose(affine_again, affine, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd", ".seg.nrrd"])
def test_masks_come_back_in_every_format(tmp_path, mask, oblique_affine, extension):
    write_mask(mask, oblique_affine, tmp_path / f"m{extension}")
    again, affine_again = read_mask(tmp_path / f"m{extension}")
    np.testing.assert_array_equal(again, mask)
    np.testing.assert_allclose(affine_again, oblique_affine, rtol=0, atol=5e-5)  # float32 at 900 mm


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("grid", ["oblique_affine", "sheared_affine"])
def test_nrrd_masks_keep_every_digit(tmp_path, mask, request, grid, compress):
    affine = request.getfixturevalue(grid)
    write_mask(mask, affine, tmp_path / "m.nrrd", compress=compress)
    again, affine_again = read_mask(tmp_path / "m.nrrd")
    np.testing.assert_array_equal(again, mask)
    np.testing.assert_array_equal(affine_again, affine)


def test_simpleitk_finds_the_nrrd_mask_in_the_same_place(tmp_path, mask, oblique_affine):
    write_mask(mask, oblique_affine, tmp_path / "m.nrrd")
    image = sitk.ReadImage(tmp_path / "m.nrrd")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), mask)
    np.testing.assert_allclose(itk_affine(image), oblique_affine, atol=1e-9)


def test_simpleitk_and_nibabel_find_the_nifti_mask_in_the_same_place(tmp_path, mask, oblique_affine):
    write_mask(mask, oblique_affine, tmp_path / "m.nii.gz")
    itk_image, image = sitk.ReadImage(tmp_path / "m.nii.gz"), load_nifti(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk_image).transpose(2, 1, 0), mask)
    np.testing.assert_allclose(itk_affine(itk_image), oblique_affine, atol=1e-4)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), mask)
    for affine, code in (image.get_qform(coded=True), image.get_sform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, oblique_affine, atol=1e-4)


def test_a_sheared_nifti_has_no_qform(tmp_path, mask, sheared_affine):
    write_mask(mask, sheared_affine, tmp_path / "m.nii")
    image = load_nifti(tmp_path / "m.nii")
    assert image.get_qform(coded=True) == (None, 0)
    np.testing.assert_allclose(image.affine, sheared_affine, atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), np.linalg.norm(sheared_affine[:3, :3], axis=0), rtol=1e-6)


def test_memory_order_and_bool_do_not_matter(oblique_affine, mask):
    for extension in (".nii", ".nrrd"):
        plain = encode_mask(mask, oblique_affine, extension, compress=False)
        assert encode_mask(np.asfortranarray(mask), oblique_affine, extension, compress=False) == plain
        assert encode_mask(np.repeat(mask, 2, axis=1)[:, ::2], oblique_affine, extension, compress=False) == plain
    assert encode_mask(mask > 1, oblique_affine, ".nrrd") == encode_mask(
        (mask > 1).astype(np.uint8), oblique_affine, ".nrrd"
    )


def test_a_raw_nrrd_is_its_header_and_its_voxels(mask):
    head, blank, voxels = encode_mask(mask, np.eye(4), ".nrrd", compress=False).partition(b"\n\n")
    assert b"encoding: raw" in head.splitlines()
    assert b"space: left-posterior-superior" in head.splitlines()
    assert b"space directions: (-1.0,0.0,0.0) (0.0,-1.0,0.0) (0.0,0.0,1.0)" in head.splitlines()
    assert (blank, voxels) == (b"\n\n", mask.tobytes(order="F"))


def test_labels_saved_as_float_are_read(tmp_path, mask):
    path = save_nifti(tmp_path / "m.nii.gz", mask.astype(np.float32), np.eye(4))
    again, _ = read_mask(path)
    np.testing.assert_array_equal(again, mask)


def test_images_are_no_masks(tmp_path, counted_voxels):
    path = save_nifti(tmp_path / "ct.nii.gz", counted_voxels, np.eye(4))
    with pytest.raises(UnsupportedVolume, match=r"'ct.nii.gz' cannot be used: it holds the value -30"):
        read_mask(path)


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 2), np.int16), np.zeros((2, 2), np.uint8)])
def test_what_is_no_mask_is_not_written(tmp_path, bad):
    with pytest.raises(ValueError, match="A mask is uint8"):
        write_mask(bad, np.eye(4), tmp_path / "m.nii")
    assert list(tmp_path.iterdir()) == []


def test_unknown_extensions_are_not_written(tmp_path, mask):
    with pytest.raises(ValueError, match=r"Cannot write '.png'"):
        write_mask(mask, np.eye(4), tmp_path / "m.png")


def test_a_failed_write_leaves_the_old_file(tmp_path, mask, monkeypatch):
    path = tmp_path / "m.nrrd"
    write_mask(mask, np.eye(4), path)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_mask(mask * 0, np.eye(4), path)
    assert [found.name for found in tmp_path.iterdir()] == ["m.nrrd"]
    np.testing.assert_array_equal(read_mask(path)[0], mask)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_masks_get_the_permissions_of_any_new_file(tmp_path, mask):
    write_mask(mask, np.eye(4), tmp_path / "m.nrrd")
    (tmp_path / "other").touch()
    assert stat.S_IMODE((tmp_path / "m.nrrd").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)
