"""Files that are no volume, or no whole one: faults by name."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.errors import UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.files import read_mask, read_volume
from tests.unit.volume.conftest import nifti_bytes, nrrd_bytes, save_nifti

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
