"""DICOM SEGs that another program wrote, or that lie on another series."""

import io

import numpy as np
import pydicom
import pytest

from deepgrow3d_app.errors import LabelMismatch, UnreadableVolume
from deepgrow3d_app.volume.dicom_seg.decode import decode_seg
from tests.unit.volume.dicom_seg.conftest import encoded, header_of


def edited(content, **values):
    header = header_of(content)
    for name, value in values.items():
        setattr(header, name, value)
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


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
