"""The cache with a folder of decoded volumes behind it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.decoded_folder import DecodedFolder
from deepgrow3d_app.volume.files import write_mask
from tests.unit.volume.conftest import KILOBYTE, CountingReader


def unread(path):
    raise AssertionError(f"{path} was decoded again")


def test_mapped_volumes_take_no_memory_and_are_read_once(files, folder):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader, folder)
    for name in "abab":
        assert isinstance(cache.get(files / name).array.base, np.memmap)
    assert reader.names == ["a", "b"]
    assert cache.n_bytes == 0


def test_volumes_are_found_again_after_a_restart(files, folder):
    VolumeCache(10 * KILOBYTE, CountingReader(), folder).get(files / "a")
    again = VolumeCache(10 * KILOBYTE, unread, DecodedFolder(folder.path, 100 * KILOBYTE))
    assert again.get(files / "a").shape == (5, 10, 10)


@pytest.mark.parametrize("kind", [".nii", ".nii.gz", ".nrrd", "dicom"])
def test_real_images_are_the_same_after_a_restart(tmp_path, folder, write_dicom, counted_voxels, oblique_affine, kind):
    if kind == "dicom":
        path = write_dicom(counted_voxels)
    else:
        path = tmp_path / f"ct{kind}"
        write_mask(np.abs(counted_voxels).astype(np.uint8), oblique_affine, path)
    expected = VolumeCache(0).get(path)
    VolumeCache(0, folder=folder).get(path)
    found = VolumeCache(0, unread, folder).get(path)
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert (found.slope, found.intercept) == (expected.slope, expected.intercept)
    assert (found.name, found.modality, found.is_ct) == (expected.name, expected.modality, expected.is_ct)


def test_a_replaced_file_replaces_its_entry(files, folder):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader, folder)
    cache.get(files / "a")
    (files / "a").write_text("other size")
    cache.get(files / "a")
    assert reader.names == ["a", "a"]
    assert len(list(folder.path.iterdir())) == 1


def test_a_damaged_entry_is_decoded_again(files, folder):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader, folder)
    cache.get(files / "a")
    (entry,) = folder.path.iterdir()
    os.truncate(entry, entry.stat().st_size - 1)
    for _ in range(2):
        assert cache.get(files / "a").array.shape == (5, 10, 10)
    assert reader.names == ["a", "a"]


def test_what_the_folder_cannot_keep_is_kept_in_memory(files):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader, DecodedFolder(files / "a" / "not-a-folder", 100 * KILOBYTE))
    assert cache.get(files / "b") is cache.get(files / "b")
    assert reader.names == ["b"]
    assert cache.n_bytes == KILOBYTE


def test_forget_and_clear_leave_nothing_on_disk(files, folder):
    cache = VolumeCache(10 * KILOBYTE, CountingReader(), folder)
    held = [cache.get(files / name) for name in "abc"]
    (files / "a").unlink()
    cache.forget(files / "a")
    assert len(list(folder.path.iterdir())) == 2
    cache.clear()
    assert list(folder.path.iterdir()) == []
    assert all(not volume.array.any() for volume in held)


def test_an_image_that_is_deleted_while_it_is_stored_leaves_nothing_on_disk(files, folder):
    class Slow(DecodedFolder):
        def store(self, source, signature, volume):
            os.unlink(source)
            cache.forget(source)
            return super().store(source, signature, volume)

    cache = VolumeCache(10 * KILOBYTE, CountingReader(), Slow(folder.path, 100 * KILOBYTE))
    assert cache.get(files / "a").shape == (5, 10, 10)
    assert list(folder.path.iterdir()) == []
    assert cache.n_bytes == 0
