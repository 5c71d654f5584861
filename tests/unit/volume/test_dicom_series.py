import itertools

import numpy as np
import pydicom
import pytest

from deepgrow3d_app.volume.dicom_series import Examination, write_dicom_series
from deepgrow3d_app.volume.files import encode_volume, read_volume
from deepgrow3d_app.volume.geometry import AxisOrder
from deepgrow3d_app.volume.volume import Volume

SCAN = Examination("p1", "Sample^One", "study", "series")


def world_of(volume, index):
    return volume.affine @ (*index, 1)


def test_every_voxel_keeps_its_place_and_value(tmp_path, counted_voxels, oblique_affine):
    volume = Volume(counted_voxels, oblique_affine)
    write_dicom_series(volume, tmp_path / "scan", SCAN)
    written = read_volume(tmp_path / "scan")
    values = {int(value): world_of(volume, index) for index, value in np.ndenumerate(counted_voxels)}
    assert written.array.size == len(values)
    for index, value in np.ndenumerate(written.array):
        np.testing.assert_allclose(world_of(written, index), values[int(value)], atol=1e-3)


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_axes_run_as_a_scanner_has_them(tmp_path, counted_voxels, axes, flips):
    affine = np.zeros((4, 4))
    for column, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        affine[axis, column] = flip * (column + 1)
    affine[3, 3] = 1
    write_dicom_series(Volume(counted_voxels, affine), tmp_path / "scan", SCAN)
    written = read_volume(tmp_path / "scan")
    assert AxisOrder.to_ras(written.affine) == AxisOrder((0, 1, 2), (True, True, False))


def test_a_scale_is_kept(tmp_path, counted_voxels):
    volume = Volume(counted_voxels, np.diag([1.0, 2.0, 3.0, 1.0]), slope=0.25, intercept=-3.0)
    write_dicom_series(volume, tmp_path / "scan", SCAN)
    written = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(
        written.array[::-1, ::-1] * written.slope + written.intercept, counted_voxels * 0.25 - 3
    )
    (tmp_path / "scan.nii.gz").write_bytes(encode_volume(volume))
    again = read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(again.array * again.slope + again.intercept, counted_voxels * 0.25 - 3)


def test_the_same_examination_has_the_same_uids(tmp_path, counted_voxels):
    volume = Volume(counted_voxels, np.eye(4))
    first = [pydicom.dcmread(file) for file in write_dicom_series(volume, tmp_path / "a", SCAN)]
    second = [pydicom.dcmread(file) for file in write_dicom_series(volume, tmp_path / "b", SCAN)]
    assert [one.SOPInstanceUID for one in first] == [one.SOPInstanceUID for one in second]
    assert len({one.SOPInstanceUID for one in first}) == len(first)
    assert len({(one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID) for one in first}) == 1
    other = Examination("p1", "Sample^One", "study", "another series")
    third = pydicom.dcmread(write_dicom_series(volume, tmp_path / "c", other)[0])
    assert third.StudyInstanceUID == first[0].StudyInstanceUID
    assert third.SeriesInstanceUID != first[0].SeriesInstanceUID
