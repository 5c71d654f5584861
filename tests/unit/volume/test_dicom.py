"""DICOM series: the order, place and values of slices, and the series that are no volume."""

from __future__ import annotations

from pathlib import Path

import gdcm
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from deepgrow3d_app.errors import InvalidInput, UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.files import read_volume
from deepgrow3d_app.volume.volume import Volume

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)  # normal (-0.6, 0.8, 0)


@pytest.fixture
def pixels() -> np.ndarray:
    """uint16 (5, 7, 4) as a scanner stores them."""
    return np.random.default_rng(1).integers(0, 4096, (5, 7, 4)).astype(np.uint16)


def test_a_series_by_hand(write_dicom, pixels):
    volume = read_volume(write_dicom(pixels))
    np.testing.assert_array_equal(volume.array, pixels.astype(int) - 1024)
    assert (volume.slope, volume.intercept, volume.name) == (1.0, 0.0, "series")
    # Columns lie 0.6 mm apart, rows 0.8 mm, slices 2.5 mm; LPS turns into RAS by two signs.
    expected = np.array([[-0.6, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
    np.testing.assert_allclose(volume.affine, expected)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE, (0, -1, 0, 1, 0, 0)])
@pytest.mark.parametrize("is_downwards", [False, True])
def test_a_series_agrees_with_simpleitk(write_dicom, pixels, orientation, is_downwards):
    normal = np.cross(orientation[:3], orientation[3:])
    steps = range(4)[::-1] if is_downwards else range(4)
    positions = [tuple((np.array((5.0, -6.0, 7.0)) + 1.5 * k * normal).tolist()) for k in steps]
    folder = write_dicom(pixels, orientation=orientation, positions_lps_mm=positions)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    expected = np.eye(4)
    expected[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    expected[:3, 3] = image.GetOrigin()
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    np.testing.assert_allclose(volume.affine, LPS_TO_RAS @ expected, atol=1e-6)


@pytest.mark.parametrize(
    ("modality", "kept", "is_ct"), [("CT", "CT", True), ("MR", "MR", False), ("PT", "PT", False), ("", None, False)]
)
@pytest.mark.parametrize("darkest", [0, 900])
def test_the_modality_says_what_is_a_ct(write_dicom, modality, kept, is_ct, darkest):
    # Without air (a cut-out of the liver) a CT does not look like one; an MR may well have values below zero.
    volume = read_volume(write_dicom(np.full((4, 4, 2), darkest, np.uint16), edit=set_on_all(Modality=modality)))
    assert volume.modality == kept
    assert volume.is_ct == (is_ct if kept else darkest == 0)


@pytest.mark.parametrize("transfer_syntax", [ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_transfer_syntaxes(write_dicom, transfer_syntax):
    pixels = np.random.default_rng(1).integers(0, 4096, (64, 96, 2)).astype(np.uint16)  # JPEG 2000 asks for this much
    volume = read_volume(write_dicom(pixels, transfer_syntax=transfer_syntax))
    np.testing.assert_array_equal(volume.array, pixels.astype(int) - 1024)


@pytest.mark.parametrize("process", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless"])
def test_the_lossless_jpeg_of_archives(write_dicom, process):
    pixels = np.random.default_rng(1).integers(0, 4096, (64, 96, 2)).astype(np.uint16)
    folder = write_dicom(pixels)
    for file in folder.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(file))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, process)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    np.testing.assert_array_equal(read_volume(folder).array, pixels.astype(int) - 1024)


def test_slices_beyond_int16_among_others(write_dicom):
    """Planes are kept as int16 up to the first that does not fit."""
    pixels = np.random.default_rng(1).integers(0, 4096, (6, 5, 4)).astype(np.uint16)
    pixels[2, 3, 2] = 60000
    volume = read_volume(write_dicom(pixels))
    np.testing.assert_array_equal(volume.array * volume.slope + volume.intercept, pixels.astype(int) - 1024)


def test_signed_pixels(write_dicom):
    pixels = np.array([-2000, -1, 0, 3000], np.int16).reshape(1, 2, 2)

    def no_rescale(one, _):
        del one.RescaleSlope, one.RescaleIntercept

    np.testing.assert_array_equal(read_volume(write_dicom(pixels, edit=no_rescale)).array, pixels)


def test_one_fractional_slope_becomes_the_volumes(write_dicom, pixels):
    def rescale(one, _):
        one.RescaleSlope, one.RescaleIntercept = 0.25, 3

    volume = read_volume(write_dicom(pixels, edit=rescale))
    np.testing.assert_array_equal(volume.array, pixels)
    assert (volume.slope, volume.intercept) == (0.25, 3.0)


def test_slopes_of_each_slice_are_applied(write_dicom, pixels):
    def rescale(one, k):
        one.RescaleSlope, one.RescaleIntercept = 0.5 + k, 0

    volume = read_volume(write_dicom(pixels, edit=rescale))
    physical = pixels * (0.5 + np.arange(4))
    np.testing.assert_allclose(volume.array * volume.slope + volume.intercept, physical, atol=0.51 * volume.slope)


def test_a_tilted_gantry_shears_the_grid(write_dicom, pixels):
    volume = read_volume(write_dicom(pixels, positions_lps_mm=[(0.0, 0.5 * k, 2.0 * k) for k in range(4)]))
    np.testing.assert_allclose(volume.affine[:3, 2], (0, -0.5, 2.0))


def test_rounded_positions_are_even_enough(write_dicom, pixels):
    volume = read_volume(write_dicom(pixels, positions_lps_mm=[(0.0, 0.0, z) for z in (0.0, 0.6, 1.3, 1.9)]))
    assert volume.spacing_mm[2] == pytest.approx(1.9 / 3)


def test_a_single_slice_takes_its_thickness(write_dicom, pixels):
    assert read_volume(write_dicom(pixels[:, :, :1])).spacing_mm == pytest.approx((0.6, 0.8, 2.5))


def test_other_files_are_passed_over(write_dicom, pixels):
    folder = write_dicom(pixels)
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "empty").touch()
    (folder / "more").mkdir()
    assert read_volume(folder).shape == (5, 7, 4)


def refusal(folder) -> str:
    with pytest.raises((UnsupportedVolume, UnreadableVolume)) as caught:
        read_volume(folder)
    assert str(folder.parent) not in str(caught.value)
    return str(caught.value)


def test_a_folder_without_dicom(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    assert refusal(tmp_path / "notes") == (
        "Cannot read 'notes': it holds no DICOM images. Give a folder with one DICOM series."
    )


def test_two_series_are_listed(write_dicom, pixels, tmp_path):
    write_dicom(pixels, folder="lung", series_uid="1.2.3")
    write_dicom(pixels[:, :, :2], folder="bone", series_uid="1.2.4")
    for path in (tmp_path / "bone").iterdir():
        path.rename(tmp_path / "lung" / path.name)
    told = refusal(tmp_path / "lung")
    assert "it holds 2 series" in told
    assert "1.2.3, CT 'lung', 4 files from 'lung-000.dcm'" in told
    assert "1.2.4, CT 'bone', 2 files from 'bone-000.dcm'" in told


def test_a_missing_slice(write_dicom, pixels):
    folder = write_dicom(np.concatenate((pixels, pixels), axis=2))
    (folder / "series-003.dcm").unlink()
    assert "'series-004.dcm' and 'series-002.dcm' lie 5.00 mm apart, where slices usually lie 2.50 mm" in refusal(
        folder
    )


def test_a_duplicate_slice(write_dicom, pixels):
    folder = write_dicom(pixels)
    (folder / "copy.dcm").write_bytes((folder / "series-003.dcm").read_bytes())
    assert "'copy.dcm' and 'series-003.dcm' lie at the same place (30.00 mm along the normal)" in refusal(folder)


def test_a_slice_moved_sideways(write_dicom, pixels):
    positions = [(0.0, 0.0, 0.0), (9.0, 0.0, 2.0), (0.0, 0.0, 4.0), (0.0, 0.0, 6.0)]
    assert "'series-002.dcm' lies 9.00 mm off the line" in refusal(write_dicom(pixels, positions_lps_mm=positions))


def set_on_second(**values):
    def edit(one, k):
        if k == 1:
            for field, value in values.items():
                setattr(one, field, value)

    return edit


def set_on_all(**values):
    def edit(one, _):
        for field, value in values.items():
            setattr(one, field, value)

    return edit


def drop(field):
    def edit(one, _):
        delattr(one, field)

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (set_on_second(PixelSpacing=[0.8, 0.9]), "differ in pixel spacing: 'series-002.dcm' has 0.9 x 0.8 mm"),
        (
            set_on_second(ImageOrientationPatient=[0, 1, 0, 1, 0, 0]),
            "differ in orientation: 'series-002.dcm' has (0.0, 1",
        ),
        (set_on_second(Rows=6), "differ in size (columns, rows): 'series-002.dcm' has (5, 6)"),
        (set_on_all(NumberOfFrames=3), "'series-000.dcm' cannot be used: it holds 3 frames in one file"),
        (set_on_all(SamplesPerPixel=3), "colours (RGB)"),
        (set_on_all(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not two perpendicular unit vectors"),
        (set_on_all(Rows=15000, Columns=15000), "its pixels cannot be decoded"),
        (set_on_all(PixelSpacing=[0, 0]), "singular or out of range"),
        (drop("ImagePositionPatient"), "its place in the patient is missing or damaged"),
        (drop("PixelData"), "its pixels cannot be decoded"),
    ],
)
def test_series_that_are_no_volume(write_dicom, pixels, edit, told):
    assert told in refusal(write_dicom(pixels, edit=edit))


def test_truncated_pixels(write_dicom, pixels):
    folder = write_dicom(pixels)
    path = folder / "series-001.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(folder).startswith("Cannot read 'series-001.dcm': its pixels cannot be decoded")


def outcome(folder: Path) -> Volume | InvalidInput:
    try:
        return read_volume(folder)
    except InvalidInput as refusal:
        return refusal
