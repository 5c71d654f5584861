"""Images and masks through NIfTI and NRRD: grids to the last digit, faults by name, never a raw exception."""

from __future__ import annotations

import gzip
import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from deepgrow3d_app.errors import InvalidInput, UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.files import encode_mask, extension_of, read_mask, read_volume, write_mask
from deepgrow3d_app.volume.volume import Volume

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
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


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def load_nifti(path: Path) -> Any:
    return nib.load(path)


def itk_affine(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.asarray(LPS_TO_RAS @ affine)


# --- images


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


# --- masks


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


def test_extensions():
    assert [extension_of(name) for name in ("a.nii", "A.NII.GZ", "a.b.seg.nrrd", "a.nrrd", "a.gz", "nii")] == [
        ".nii", ".nii.gz", ".seg.nrrd", ".nrrd", "", ""
    ]  # fmt: skip


# --- faults


def nifti_bytes(**header_fields) -> bytes:
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    header = image.header.copy()
    for field, value in header_fields.items():
        header[field] = value
    header["vox_offset"] = header_fields.get("vox_offset", 352)
    content[:348] = header.binaryblock
    return bytes(content)


def nrrd_bytes(**replaced) -> bytes:
    head, _, voxels = encode_mask(np.zeros((2, 3, 4), np.uint8), np.eye(4), ".nrrd", compress=False).partition(b"\n\n")
    lines = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    lines |= {key.replace("_", " "): value for key, value in replaced.items()}
    return "\n".join(["NRRD0004", *(f"{key}: {value}" for key, value in lines.items()), "", ""]).encode() + voxels


FAULTS = {
    "empty.nii.gz": (b"", "not gzip inside"),
    "empty.nii": (b"", "does not start with a NIfTI header"),
    "empty.nrrd": (b"", "does not start with a NRRD header"),
    "text.nii": (b"hello" * 200, "does not start with a NIfTI header"),
    "not-gzip.nii.gz": (nifti_bytes(), "it is not gzip inside. If it is NIfTI, name it '.nii'"),
    "gzip.nii": (gzip.compress(nifti_bytes()), "it is gzip inside. If it is NIfTI, name it '.nii.gz'"),
    "cut.nii": (nifti_bytes()[:-1], "truncated: it has 399 bytes of 400"),
    "cut.nii.gz": (gzip.compress(nifti_bytes())[:-12], "truncated"),
    "gzip-of-text.nii.gz": (gzip.compress(b"hello" * 200), "does not start with a NIfTI header"),
    "pair.nii": (nifti_bytes(magic=b"ni1"), "half of a .hdr/.img pair"),
    "4d.nii": (nifti_bytes(dim=[4, 2, 3, 2, 2, 1, 1, 1]), r"4 dimensions \(2, 3, 2, 2\)"),
    "2d.nii": (nifti_bytes(dim=[2, 2, 3, 1, 1, 1, 1, 1]), "2 dimensions"),
    "none.nii": (nifti_bytes(dim=[3, 2, 0, 4, 1, 1, 1, 1]), "no voxels"),
    "rgb.nii": (nifti_bytes(datatype=128, bitpix=24), r"colours \(RGB\)"),
    "complex.nii": (nifti_bytes(datatype=32, bitpix=64), "complex numbers"),
    "type.nii": (nifti_bytes(datatype=999), "header is damaged"),
    "offset.nii": (nifti_bytes(vox_offset=np.nan), "header is damaged"),
    "low.nii": (nifti_bytes(vox_offset=16), "voxels at byte 16"),
    "singular.nii": (nifti_bytes(srow_z=(0, 0, 0, 0)), "singular"),
    "nan.nii": (nifti_bytes(srow_z=(0, 0, np.nan, 0)), "not a finite"),
    "claim.nii": (nifti_bytes(dim=[3, 1000, 1000, 1000, 1, 1, 1, 1]), "truncated: it has 400 bytes of 2000000352"),
    "claim.nii.gz": (
        gzip.compress(nifti_bytes(dim=[3, 1000, 1000, 1000, 1, 1, 1, 1])),
        "promises 2000000352 bytes, more than",
    ),
    "huge.nii": (nifti_bytes(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "claims 32767 x 32767 x 32767 voxels"),
    "detached.nrrd": (nrrd_bytes(data_file="/etc/hostname"), "voxels lie in another file"),
    "detached.nhdr": (nrrd_bytes(), "'.nhdr' is not a format .* save it as one .nrrd file"),
    "bz2.nrrd": (nrrd_bytes(encoding="bzip2"), "stored as 'bzip2'"),
    "skip.nrrd": (nrrd_bytes(byteskip="4"), "behind skipped bytes"),
    "lines.nrrd": (nrrd_bytes(line_skip="1"), "behind skipped bytes"),
    "space.nrrd": (nrrd_bytes(space="scanner-xyz"), "its space is 'scanner-xyz'. Save it in the space left-posterior"),
    "origin.nrrd": (nrrd_bytes(space_origin="(0,0)"), "header is damaged or incomplete .*space origin has 2 numbers"),
    "type.nrrd": (nrrd_bytes(type="block"), "header is damaged or incomplete .*block"),
    "endless.nrrd": (b"NRRD0004\ntype: uchar\n", "header does not end"),
    "cut.nrrd": (nrrd_bytes()[:-1], "truncated: it has 23 bytes of 24"),
    "claim.nrrd": (nrrd_bytes(sizes="1000 1000 1000"), "truncated"),
    "claim-gz.nrrd": (nrrd_bytes(sizes="1000 1000 1000", encoding="gzip"), "promises 1000000000 bytes"),
    "huge.nrrd": (nrrd_bytes(sizes="9999999999 9 9"), "claims 9999999999"),
    "layers.nrrd": (
        nrrd_bytes(dimension="4", sizes="2 1 3 4", space_directions="none (1,0,0) (0,1,0) (0,0,1)"),
        "4 dimensions .*in 3D Slicer, collapse the layers",
    ),
    "no-size.nrrd": (nrrd_bytes(space_directions="none none none"), "3 dimensions"),
    "drawn.seg.nrrd": (nrrd_bytes(), "it is a segmentation. Send the image"),
    "photo.png": (b"x", r"'.png' is not a format that it can have. Send .nii, .nii.gz or .nrrd"),
    "one.dcm": (b"x", "Give the folder that holds the whole DICOM series"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(tmp_path, name):
    content, told = FAULTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises((UnreadableVolume, UnsupportedVolume), match=told) as caught:
        read_volume(tmp_path / name)
    assert f"'{name}'" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_overlapping_slicer_segments_are_refused_as_a_mask(tmp_path):
    (tmp_path / "s.seg.nrrd").write_bytes(FAULTS["layers.nrrd"][0])
    with pytest.raises(UnsupportedVolume, match="collapse the layers of a segmentation"):
        read_mask(tmp_path / "s.seg.nrrd")


def test_a_missing_file_is_named_without_its_folder(tmp_path):
    with pytest.raises(UnreadableVolume, match=r"^Cannot read 'gone.nii.gz': there is no such file. Check the name.$"):
        read_volume(tmp_path / "gone.nii.gz")


@pytest.mark.parametrize("read", [read_volume, read_mask])
def test_a_name_that_is_too_long_is_a_fault_of_its_file(tmp_path, read):
    with pytest.raises(UnreadableVolume, match=r"y.nii': it cannot be opened \(File name too long\)"):
        read(tmp_path / ("y" * 256 + ".nii"))


def test_a_series_is_named_from_within_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreadableVolume, match=f"'{tmp_path.name}': it holds no DICOM images"):
        read_volume(".")


def test_a_folder_is_no_mask(tmp_path):
    (tmp_path / "m.nii").mkdir()
    with pytest.raises(UnreadableVolume, match="it is not a file"):
        read_mask(tmp_path / "m.nii")


def test_a_pipe_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in this file system")
    os.mkfifo(tmp_path / "p.nii")
    with pytest.raises(UnreadableVolume, match="it is not a file"):
        read_volume(tmp_path / "p.nii")


def test_refusals_of_the_file_system_do_not_show_the_folder(tmp_path, monkeypatch):
    path = save_nifti(tmp_path / "x.nii", np.zeros((2, 2, 2), np.int16), np.eye(4))

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableVolume, match=r"^Cannot read 'x.nii': it cannot be opened \(Permission denied\)"):
        read_volume(path)


# --- whatever the bytes

SEEDS = {
    ".nii": nifti_bytes(),
    ".nii.gz": gzip.compress(nifti_bytes()),
    ".nrrd": nrrd_bytes(),
    "-gzip.nrrd": encode_mask(np.ones((2, 3, 4), np.uint8), np.eye(4), ".nrrd"),
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants")


Found = TypeVar("Found")


def outcome(read: Callable[[Path], Found], path: Path) -> Found | InvalidInput:
    try:
        return read(path)
    except InvalidInput as refusal:
        return refusal


@pytest.mark.parametrize("extension", SEEDS)
@settings(deadline=None)
@given(data=st.data())
def test_no_bytes_raise_anything_untyped(scratch, extension, data):
    content = bytearray(SEEDS[extension])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=4))
        content[at : at + len(piece)] = piece
    path = scratch / f"mutant{extension}"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    readers: tuple[Callable[[Path], Any], ...] = (read_volume, read_mask)
    for read in readers:
        found = outcome(read, path)
        if isinstance(found, InvalidInput):
            assert path.name in str(found)
        else:
            array = found.array if isinstance(found, Volume) else found[0]
            assert 0 < array.size <= 1032 * len(content)


@pytest.mark.parametrize("extension", [".nii", ".nrrd"])
@settings(deadline=None)
@given(content=st.binary(max_size=600))
def test_no_header_raises_anything_untyped(scratch, extension, content):
    """Arbitrary bytes behind a valid beginning, so that they reach the parser."""
    start = {".nrrd": b"NRRD0004\n", ".nii": b""}[extension]
    whole = bytearray(start + content + b"\n\n")
    if extension == ".nii":
        whole = whole.ljust(400, b"\0")
        whole[344:348] = b"n+1\0"
    path = scratch / f"arbitrary{extension}"
    path.write_bytes(whole)
    found = outcome(read_volume, path)
    assert path.name in str(found) if isinstance(found, InvalidInput) else found.array.size > 0
