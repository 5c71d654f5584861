"""A label map, as a DICOM SEG and back; others read the same from it."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import UID

from deepgrow3d_app.errors import InvalidRequest, LabelMismatch, UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.dicom import read_dicom_series, read_series_grid
from deepgrow3d_app.volume.dicom_seg.decode import decode_seg
from deepgrow3d_app.volume.dicom_seg.encode import encode_seg
from deepgrow3d_app.volume.dicom_seg.segment import Origin, SegIdentity, Segment

SEGMENTS = [Segment(1, "spleen"), Segment(2, "kidney_left"), Segment(3, "my lesion")]
ORIGIN = Origin("DeepGrow 3D", "1.2.3")
POSITIONS = ["axial", "oblique", "reversed", "tilted"]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def encoded(label, series, segments=tuple(SEGMENTS), **given):
    return encode_seg(label, series, segments, ORIGIN, description="a label", series_number=9001, **given)


def header_of(content):
    return pydicom.dcmread(io.BytesIO(content))


def edited(content, **values):
    header = header_of(content)
    for name, value in values.items():
        setattr(header, name, value)
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("position", POSITIONS)
def test_voxels_and_names_come_back(make_series, label, position):
    series = make_series(position)
    decoded = decode_seg(encoded(label, series), series)
    np.testing.assert_array_equal(decoded.mask, label)
    assert list(decoded.segments) == SEGMENTS


def test_one_voxel_comes_back_from_every_corner(make_series):
    series = make_series("oblique")
    for corner in [(i, j, k) for i in (0, -1) for j in (0, -1) for k in (0, -1)]:
        label = np.zeros((12, 9, 7), np.uint8)
        label[corner] = 200
        decoded = decode_seg(encoded(label, series, [Segment(200, "dot")]), series)
        np.testing.assert_array_equal(decoded.mask, label > 0)
        assert list(decoded.segments) == [Segment(1, "dot")]


@pytest.mark.parametrize("position", POSITIONS)
def test_highdicom_reads_the_same(make_series, label, position):
    series = make_series(position)
    seg = highdicom.seg.segread(io.BytesIO(encoded(label, series)))
    uids = [str(pydicom.dcmread(one.path).SOPInstanceUID) for one in read_series_grid(series).slices]
    pixels = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels.transpose(2, 1, 0), label)


@pytest.mark.parametrize("position", ["axial", "oblique", "reversed"])
def test_dcmqi_reads_the_same(make_series, label, position, tmp_path):
    series = make_series(position)
    (tmp_path / "seg.dcm").write_bytes(encoded(label, series))
    program = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent))
    assert program, "dcmqi is one of the tools in requirements-dev.txt"
    words = [
        "--inputDICOM",
        tmp_path / "seg.dcm",
        "--outputDirectory",
        tmp_path,
        "--prefix",
        "out",
        "--outputType",
        "nii",
    ]
    subprocess.run([program, *map(str, words)], check=True, capture_output=True)
    volume = read_dicom_series(series)
    for number in (1, 2, 3):
        image = sitk.ReadImage(str(tmp_path / f"out-{number}.nii.gz"))
        voxels = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        affine = np.eye(4)
        affine[:3, :3] = LPS_TO_RAS @ np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
        affine[:3, 3] = LPS_TO_RAS @ image.GetOrigin()
        theirs = {tuple(np.round(affine @ (*index, 1), 2)) for index in np.argwhere(voxels)}
        ours = {tuple(np.round(volume.affine @ (*index, 1), 2)) for index in np.argwhere(label == number)}
        assert len(ours) == np.count_nonzero(label == number)
        assert theirs == ours


def test_it_says_what_it_is(make_series, label):
    series = make_series("axial")
    header = header_of(encoded(label, series))
    source = pydicom.dcmread(read_series_grid(series).slices[0].path)
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert header[name].value == source[name].value
    assert header.SeriesDescription == "a label"
    assert (header.SeriesNumber, header.Manufacturer, header.SoftwareVersions) == (9001, "DeepGrow 3D", "1.2.3")
    spleen, kidney, lesion = header.SegmentSequence
    kinds = [one.SegmentedPropertyTypeCodeSequence[0] for one in (spleen, kidney, lesion)]
    assert [(kind.CodeValue, kind.CodingSchemeDesignator) for kind in kinds] == [
        ("78961009", "SCT"),
        ("64033007", "SCT"),
        ("85756007", "SCT"),
    ]
    (side,) = kinds[1].SegmentedPropertyTypeModifierCodeSequence
    assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")
    algorithm = spleen.SegmentationAlgorithmIdentificationSequence[0]
    assert (spleen.SegmentAlgorithmType, algorithm.AlgorithmName) == ("SEMIAUTOMATIC", "DeepGrow 3D")
    assert algorithm.AlgorithmVersion == "1.2.3"


def test_every_frame_refers_to_its_slice(make_series, label):
    series = make_series("reversed")
    header = header_of(encoded(label, series))
    places = {
        str(source.SOPInstanceUID): source.ImagePositionPatient
        for source in (pydicom.dcmread(file) for file in series.iterdir())
    }
    for frame in header.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert places[source.ReferencedSOPInstanceUID] == frame.PlanePositionSequence[0].ImagePositionPatient
    # 6 slices with values 1 and 2, one voxel of value 3
    assert header.NumberOfFrames == 2 * 6 + 1


def test_uids_can_be_given(make_series, label):
    series = make_series("axial")
    identity = SegIdentity("1.2.3.4", "1.2.3.4.5")
    content = encoded(label, series, identity=identity)
    assert decode_seg(content, series).identity == identity
    assert decode_seg(encoded(label, series), series).identity != decode_seg(encoded(label, series), series).identity


def test_values_without_names_and_names_without_voxels(make_series, label):
    series = make_series("axial")
    decoded = decode_seg(encoded(label, series, [Segment(2, "liver"), Segment(9, "nowhere")]), series)
    assert [segment.name for segment in decoded.segments] == ["label 1", "liver", "label 3"]


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


def test_a_slice_of_the_label_map_lies_in_one_piece(make_series, label):
    """Else each frame goes through all of the memory: ten times as long for a whole CT."""
    series = make_series("axial")
    assert decode_seg(encoded(label, series), series).mask.flags.f_contiguous


def test_a_frame_of_a_segment_beyond_a_label_maps_values(make_series, label):
    series = make_series("axial")
    header = header_of(encoded(label, series))
    frame = header.PerFrameFunctionalGroupsSequence[0]
    frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 300
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    with pytest.raises(UnreadableVolume, match="segment 300"):
        decode_seg(file.getvalue(), series)


def test_frames_that_run_backwards_are_put_right(make_series, label):
    """A SEG of another program may have its rows from the bottom up."""
    series = make_series("axial")
    header = header_of(encoded(label, series))
    pixels = header.pixel_array[:, ::-1]
    orientation = header.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    spacing = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    down = np.array(orientation.ImageOrientationPatient[3:], float)
    orientation.ImageOrientationPatient = [*orientation.ImageOrientationPatient[:3], *(-down)]
    for frame in header.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        place.ImagePositionPatient = list(np.array(place.ImagePositionPatient, float) + down * spacing[0] * 8)
    header.PixelData = pydicom.pixels.utils.pack_bits(pixels.reshape(-1))
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    np.testing.assert_array_equal(decode_seg(file.getvalue(), series).mask, label)


def test_another_place_is_refused(make_series, label):
    series = make_series("axial")
    header = header_of(encoded(label, series))
    for frame in header.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        place.ImagePositionPatient = [place.ImagePositionPatient[0] + 0.3, *place.ImagePositionPatient[1:]]
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    with pytest.raises(LabelMismatch, match="Draw it on this series"):
        decode_seg(file.getvalue(), series)


def test_another_frame_of_reference_is_refused(make_series, label):
    series = make_series("axial")
    with pytest.raises(LabelMismatch, match=r"frame of reference 1\.2\.3"):
        decode_seg(edited(encoded(label, series), FrameOfReferenceUID="1.2.3"), series)


def test_overlapping_segments_are_named(make_series, label):
    series = make_series("axial")
    header = header_of(encoded(label, series))
    pixels = header.pixel_array
    pixels[:] = 1
    header.PixelData = pydicom.pixels.utils.pack_bits(pixels.reshape(-1))
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    with pytest.raises(LabelMismatch, match="'spleen' and 'kidney_left' overlap in 108 voxels"):
        decode_seg(file.getvalue(), series)


@pytest.mark.parametrize("content", [b"", b"not DICOM", b"\0" * 128 + b"DICM" + b"\1" * 50])
def test_what_is_no_dicom(make_series, content):
    with pytest.raises(UnreadableVolume):
        decode_seg(content, make_series("axial"))


def test_an_image_is_no_segmentation(make_series):
    series = make_series("axial")
    with pytest.raises(UnreadableVolume, match="modality 'CT'"):
        decode_seg(next(series.iterdir()), series)
