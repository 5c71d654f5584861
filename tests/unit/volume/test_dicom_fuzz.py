"""DICOM files with damaged headers are read, or refused with a reason. `make fuzz` sends more of them."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from deepgrow3d_app.errors import InvalidInput
from deepgrow3d_app.volume.dicom_series import Examination, write_dicom_series
from deepgrow3d_app.volume.files import read_volume
from deepgrow3d_app.volume.volume import Volume

PREAMBLE = 132
N_VOXELS = 4 * 5 * 2


@pytest.fixture(params=[ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless], ids=lambda uid: uid.name)
def series(request, write_dicom):
    return write_dicom(np.arange(N_VOXELS, dtype=np.int16).reshape(4, 5, 2), transfer_syntax=request.param)


def is_refused(folder):
    """Whether the series is; fails where anything but a reason comes of it."""
    try:
        volume = read_volume(folder)
    except InvalidInput as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert str(folder.parent) not in refusal, "a path of the server is nobody's business"
        return True
    assert volume.array.ndim == 3
    assert np.isfinite(volume.affine).all()
    return False


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_dicom_bytes_raise_anything_untyped(series, data):
    file = sorted(series.iterdir())[0]
    whole = file.read_bytes()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(PREAMBLE - 4, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=4))
        content[at : at + len(piece)] = piece
    kept = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    file.write_bytes(content[:kept])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom tells of every odd value
            is_refused(series)
    finally:
        file.write_bytes(whole)
    assert not is_refused(series)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tag=st.sampled_from(
        ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation"]
    ),
    number=st.integers(0, 2**16 - 1),
)
def test_no_size_in_a_header_takes_memory_that_the_file_has_not(tmp_path_factory, tag, number):
    folder = tmp_path_factory.mktemp("size")
    volume_folder = _plain_series(folder)
    file = sorted(volume_folder.iterdir())[0]
    one = dcmread(file)
    setattr(one, tag, number)
    one.save_as(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        is_refused(volume_folder)


def _plain_series(folder):
    volume = Volume(np.arange(N_VOXELS, dtype=np.int16).reshape(4, 5, 2), np.eye(4))
    write_dicom_series(volume, folder / "series", Examination("1", "Nobody", "study", "series"))
    return folder / "series"
