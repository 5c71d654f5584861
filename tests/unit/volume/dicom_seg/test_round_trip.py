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

from deepgrow3d_app.volume.dicom import read_dicom_series, read_series_grid
from deepgrow3d_app.volume.dicom_seg.decode import decode_seg
from deepgrow3d_app.volume.dicom_seg.segment import SegIdentity, Segment
from tests.unit.volume.dicom_seg.conftest import SEGMENTS, encoded, header_of

POSITIONS = ["axial", "oblique", "reversed", "tilted"]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


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


def test_a_slice_of_the_label_map_lies_in_one_piece(make_series, label):
    """Else each frame goes through all of the memory: ten times as long for a whole CT."""
    series = make_series("axial")
    assert decode_seg(encoded(label, series), series).mask.flags.f_contiguous
