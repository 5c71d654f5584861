"""Images through NIfTI and NRRD: grids to the last digit."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from deepgrow3d_app.volume.files import extension_of, read_volume
from tests.unit.volume.conftest import LPS_TO_RAS, itk_affine, load_nifti, save_nifti


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".NII.GZ"])
def test_nifti_voxels_affine_and_name(tmp_path, counted_voxels, oblique_affine, extension):
    path = save_nifti(tmp_path / "ct.nii", counted_voxels, oblique_affine)
    content = path.read_bytes()
    path = tmp_path / f"ct{extension}"
    path.write_bytes(gzip.compress(content) if extension.lower().endswith("gz") else content)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, counted_voxels)
    np.testing.assert_allclose(volume.affine, oblique_affine, atol=1e-4)
    assert volume.name == f"ct{extension}"
    assert volume.array.flags.writeable  # torch warns of tensors over read-only memory


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "u2", "f4", "f8"])
def test_nifti_agrees_with_nibabel(tmp_path, oblique_affine, kind, dtype):
    voxels = np.arange(120).reshape(4, 5, 6).astype(dtype)
    image = kind(voxels, oblique_affine, kind.header_class(endianness=">" if dtype[0] == ">" else "<"))
    image.set_data_dtype(dtype)
    image.header.set_slope_inter(0.5, -100)
    # to_filename would rescale: the stored voxels themselves are what is wanted here.
    path = tmp_path / "x.nii"
    header = image.header.copy()
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 544, 0.5, -100
    path.write_bytes(header.binaryblock.ljust(544, b"\0") + voxels.tobytes(order="F"))
    expected = load_nifti(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.affine, expected.affine)
    np.testing.assert_allclose(volume.array * volume.slope + volume.intercept, expected.get_fdata())
    assert (volume.slope, volume.intercept) == (0.5, -100.0)


def test_nifti_without_sform_uses_the_qform(tmp_path, counted_voxels, oblique_affine):
    image = nib.Nifti1Image(counted_voxels, None)
    image.set_sform(None, 0)
    image.set_qform(oblique_affine, 1)
    nib.save(image, tmp_path / "q.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "q.nii.gz").affine, oblique_affine, atol=1e-4)


def nifti_file(path: Path, *, pixdim=(0.7, 0.9, 2.5), **header_fields) -> Path:
    """Zeros (4, 5, 6) under a header whose sform and qform are two different, rigid placements."""
    header: Any = nib.Nifti1Header()
    header.set_data_shape((4, 5, 6))
    header.set_data_dtype(np.int16)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) * (0.7, 0.9, -2.5)
    affine[:3, 3] = (10.5, -20.25, 30)
    header.set_qform(affine, 1)
    affine[:3, :3] = np.array([[0, 0.28, 0.96], [1, 0, 0], [0, 0.96, -0.28]]) * (0.7, 0.9, 2.5)
    affine[:3, 3] = (-7, 8, 900)
    header.set_sform(affine, 1)
    header["pixdim"][1:4] = pixdim
    for field, value in ({"magic": b"n+1", "vox_offset": 352, "xyzt_units": 2} | header_fields).items():
        header[field] = value
    path.write_bytes(header.binaryblock.ljust(352, b"\0") + bytes(240))
    return path


@pytest.mark.parametrize("sform_code", range(5))
@pytest.mark.parametrize("qform_code", range(5))
def test_nifti_lies_where_itk_puts_it_whatever_the_codes(tmp_path, qform_code, sform_code):
    path = nifti_file(tmp_path / "x.nii", qform_code=qform_code, sform_code=sform_code)
    np.testing.assert_allclose(read_volume(path).affine, itk_affine(sitk.ReadImage(path)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("units", range(8))
def test_nifti_units_become_mm_as_itk_has_them(tmp_path, codes, units):
    # Voxels of 250 units: 0.25 mm in microns, 250 mm in mm; in metres, 0.25 units are 250 mm.
    size = 0.25 if units == 1 else 250.0
    fields = {"qform_code": codes[0], "sform_code": codes[1], "xyzt_units": units | 8}  # 8: seconds
    path = nifti_file(tmp_path / "x.nii", pixdim=(size, size, size), **fields)
    affine = read_volume(path).affine
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), 0.25 if units == 3 else 250, rtol=1e-5)
    np.testing.assert_allclose(affine, itk_affine(sitk.ReadImage(path)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("codes", [(0, 0), (2, 2), (0, 2), (1, 1)])
def test_nifti_voxels_have_the_size_of_pixdim_as_in_itk(tmp_path, codes):
    path = nifti_file(tmp_path / "x.nii", pixdim=(1.5, 1.5, 5), qform_code=codes[0], sform_code=codes[1])
    np.testing.assert_allclose(read_volume(path).spacing_mm, (1.5, 1.5, 5), rtol=1e-5)
    np.testing.assert_allclose(read_volume(path).affine, itk_affine(sitk.ReadImage(path)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("pixdim", [(0, 0, 0), (-0.7, -0.9, -2.5), (np.nan, np.inf, -np.inf)])
def test_an_sform_needs_no_pixdim(tmp_path, pixdim):
    path = nifti_file(tmp_path / "x.nii", pixdim=pixdim)
    np.testing.assert_allclose(read_volume(path).spacing_mm, (0.7, 0.9, 2.5), rtol=1e-5)


@pytest.mark.parametrize("qfac", [-1, 0, 1, 5])
def test_a_qform_is_mirrored_by_a_negative_qfac_alone(tmp_path, qfac):
    path = nifti_file(tmp_path / "x.nii", sform_code=0)
    content = bytearray(path.read_bytes())
    content[76:80] = np.float32(qfac).tobytes()
    path.write_bytes(content)
    np.testing.assert_allclose(read_volume(path).affine, itk_affine(sitk.ReadImage(path)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("qfac", [-1, 0, 1])
@pytest.mark.parametrize(("first", "quatern_c"), [(1, 0), (-1, 1)])
def test_a_wrong_qfac_mirrors_nothing_that_an_sform_places(tmp_path, qfac, first, quatern_c):
    affine = np.diag((first * 0.7, 0.9, 2.5, 1.0))
    affine[:3, 3] = (10.5, -20.25, 30)
    rows = {"srow_x": affine[0], "srow_y": affine[1], "srow_z": affine[2]}
    quaternion = {"quatern_b": 0, "quatern_c": quatern_c, "quatern_d": 0}
    path = nifti_file(tmp_path / "x.nii", qform_code=1, sform_code=2, **rows, **quaternion)
    content = bytearray(path.read_bytes())
    content[76:80] = np.float32(qfac).tobytes()
    path.write_bytes(content)
    np.testing.assert_allclose(read_volume(path).affine, affine, rtol=0, atol=1e-4)
    np.testing.assert_allclose(itk_affine(sitk.ReadImage(path)), affine, rtol=0, atol=1e-4)


def test_a_trailing_dimension_of_one_step_is_dropped(tmp_path, counted_voxels):
    path = save_nifti(tmp_path / "t.nii.gz", counted_voxels[..., None], np.eye(4))
    np.testing.assert_array_equal(read_volume(path).array, counted_voxels)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
@pytest.mark.parametrize("compress", [True, False])
def test_nrrd_agrees_with_simpleitk(tmp_path, oblique_affine, dtype, compress):
    voxels = np.arange(120).reshape(4, 5, 6).astype(dtype)
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    lps = LPS_TO_RAS @ oblique_affine
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetDirection((lps[:3, :3] / (0.7, 0.9, 2.5)).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, tmp_path / "x.nrrd", compress)
    volume = read_volume(tmp_path / "x.nrrd")
    np.testing.assert_array_equal(volume.array, voxels)
    np.testing.assert_allclose(volume.affine, oblique_affine, atol=1e-9)


NRRD = """NRRD0005
# a comment: with a colon
type: {type}
dimension: 3
{space}
sizes: 1 2 3
{directions}
endian: big
encoding: raw
Segment0_Name:=space: lies

"""


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("space: left-posterior-superior", (-1, -1, 1)),
        ("space: LPS", (-1, -1, 1)),
        ("space: right-anterior-superior", (1, 1, 1)),
        ("space: left-anterior-superior", (-1, 1, 1)),
        ("space dimension: 3", (-1, -1, 1)),
    ],
)
def test_nrrd_spaces(tmp_path, space, signs):
    text = NRRD.format(
        type="short", space=space, directions="space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)"
    )
    path = tmp_path / "x.nrrd"
    path.write_bytes(text.encode() + np.arange(6, dtype=">i2").tobytes())
    volume = read_volume(path)
    assert volume.array.ravel(order="F").tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(
        volume.affine, np.diag((*signs, 1)) @ [[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]]
    )


def test_nrrd_with_spacings_alone(tmp_path):
    text = NRRD.format(type="uchar", space="# none", directions="spacings: 2 3 4")
    (tmp_path / "x.nrrd").write_bytes(text.replace("\n", "\r\n").encode() + bytes(6))
    np.testing.assert_array_equal(read_volume(tmp_path / "x.nrrd").affine, np.diag((-2.0, -3.0, 4.0, 1.0)))


def test_extensions():
    assert [extension_of(name) for name in ("a.nii", "A.NII.GZ", "a.b.seg.nrrd", "a.nrrd", "a.gz", "nii")] == [
        ".nii", ".nii.gz", ".seg.nrrd", ".nrrd", "", ""
    ]  # fmt: skip
