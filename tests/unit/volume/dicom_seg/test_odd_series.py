"""Series whose headers are not quite in order, and labels that no DICOM SEG can hold."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from deepgrow3d_app.errors import InvalidRequest, LabelMismatch, UnsupportedVolume
from deepgrow3d_app.volume.dicom import read_series_grid
from deepgrow3d_app.volume.dicom_seg.decode import decode_seg
from deepgrow3d_app.volume.dicom_seg.segment import Segment
from tests.unit.volume.dicom_seg.conftest import encoded, header_of


def test_an_empty_label_is_refused(make_series):
    with pytest.raises(InvalidRequest, match="empty"):
        encoded(np.zeros((12, 9, 7), np.uint8), make_series("axial"))


def test_a_label_of_another_shape_is_refused(make_series):
    with pytest.raises(LabelMismatch, match=r"\(12, 9, 6\).*\(12, 9, 7\)"):
        encoded(np.ones((12, 9, 6), np.uint8), make_series("axial"))


def test_a_series_without_frame_of_reference_is_refused(make_series, label):
    series = make_series("axial")
    for file in series.iterdir():
        header = pydicom.dcmread(file)
        del header.FrameOfReferenceUID
        header.save_as(file)
    with pytest.raises(UnsupportedVolume, match="FrameOfReferenceUID"):
        encoded(label, series)


def test_a_series_that_says_little_of_its_patient(make_series, label):
    series = make_series("axial")
    for file in series.iterdir():
        header = pydicom.dcmread(file)
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyTime"):
            delattr(header, name)
        header.save_as(file)
    np.testing.assert_array_equal(decode_seg(encoded(label, series), series).mask, label)


def with_headers(series, change):
    """``series``, after ``change(header, k)`` of each slice."""
    for k, file in enumerate(sorted(series.iterdir())):
        header = pydicom.dcmread(file)
        change(header, k)
        header.save_as(file)
    return series


@pytest.mark.parametrize(
    ("charset", "patient", "names"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg", ["\u809d\u810f", "\u813e\u810f"]),
        (None, "A^B", ["L\u00e4sion", "\u043f\u0435\u0447\u0435\u043d\u044c"]),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", ["liver", "\u813e\u810f"]),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9", ["liver", "spleen"]),
        ("ISO 2022 IR 100", "M\u00fcller^", ["liver", "\u00df"]),
        ("GB18030", "Wang=\u738b^\u5c0f\u4e1c", ["\u809d\u810f", "\u00df"]),
    ],
)
def test_names_of_structures_and_patients_come_back_from_any_character_set(make_series, label, charset, patient, names):
    def change(header, k):
        if charset is not None:
            header.SpecificCharacterSet = charset
        header.PatientName = patient

    series = with_headers(make_series("axial"), change)
    content = encoded(label, series, [Segment(value, name) for value, name in enumerate(names, start=1)])
    assert [one.name for one in decode_seg(content, series).segments] == [*names, "label 3"]
    assert str(header_of(content).PatientName) == patient


@pytest.mark.parametrize("edge_mm", [0.4375, 0.55, 0.625])
def test_slices_whose_positions_are_rounded(tmp_path, make_series, edge_mm):
    """Steps of 0.6 and 0.7 mm out of 0.625: slices lie up to 0.15 voxels off the even grid."""
    source = pydicom.dcmread(next(make_series("axial").iterdir()))
    series = tmp_path / "rounded"
    series.mkdir()
    for k in range(200):
        source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{k + 1}")
        source.ImagePositionPatient = [*source.ImagePositionPatient[:2], f"{k * edge_mm:.1f}"]
        source.save_as(series / f"{k:03d}.dcm")
    mask = np.zeros((12, 9, 200), np.uint8)
    mask[3, 2:5, ::3] = 1
    content = encoded(mask, series, [Segment(1, "liver")])
    np.testing.assert_array_equal(decode_seg(content, series).mask, mask)
    evened = header_of(content)  # as a program writes it that knows the even grid only
    step_mm = read_series_grid(series).affine[2, 2]
    for frame in evened.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        k = round(float(place.ImagePositionPatient[2]) / edge_mm)
        place.ImagePositionPatient = [*place.ImagePositionPatient[:2], f"{k * step_mm:.6f}"]
    file = io.BytesIO()
    evened.save_as(file, enforce_file_format=True)
    np.testing.assert_array_equal(decode_seg(file.getvalue(), series).mask, mask)


def test_orientations_and_demographics_that_are_not_quite_in_order(make_series, label):
    def change(header, k):
        header.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0" if k % 2 else "-1.2e-10"]
        header.PatientSex = "X"
        header["PatientBirthDate"] = pydicom.DataElement(
            0x00100030, "DA", "unknown", validation_mode=pydicom.config.IGNORE
        )

    series = with_headers(make_series("axial"), change)
    content = encoded(label, series, [Segment(1, "a\\b"), Segment(2, "two\nlines"), Segment(3, "x" * 90)])
    decoded = decode_seg(content, series)
    np.testing.assert_array_equal(decoded.mask, label)
    assert [one.name for one in decoded.segments] == ["a/b", "two lines", "x" * 64]


def test_a_slice_without_uid_is_refused(make_series, label):
    def change(header, k):
        if k == 3:
            del header.SOPInstanceUID

    with pytest.raises(UnsupportedVolume, match="a slice of it has no SOPInstanceUID"):
        encoded(label, with_headers(make_series("axial"), change))


def test_a_series_that_highdicom_cannot_refer_to_is_refused(make_series, label):
    def change(header, k):
        header.StudyInstanceUID = f"1.2.{k + 1}"

    with pytest.raises(UnsupportedVolume, match="no DICOM SEG can refer to it"):
        encoded(label, with_headers(make_series("axial"), change))
