"""The cache: what is read how often, by whom, and what is let go."""

from __future__ import annotations

import os

import numpy as np
import pytest

from deepgrow3d_app.errors import UnreadableVolume
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import write_mask
from deepgrow3d_app.volume.volume import Volume
from tests.unit.volume.conftest import KILOBYTE, CountingReader


def test_a_volume_is_read_once(files):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader)
    assert cache.get(files / "a") is cache.get(str(files / "a"))
    assert reader.names == ["a"]
    assert cache.n_bytes == KILOBYTE


def test_a_forgotten_volume_leaves_nothing_even_if_its_file_is_gone(files):
    cache = VolumeCache(10 * KILOBYTE, CountingReader())
    cache.get(files / "a")
    cache.get(files / "b")
    (files / "a").unlink()
    cache.forget(files / "a")
    cache.forget(files / "never-read")
    assert cache.n_bytes == KILOBYTE


def test_two_names_of_one_file_share_it(files):
    (files / "link").symlink_to(files / "a")
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader)
    assert cache.get(files / "link") is cache.get(files / "a")


def test_the_least_recently_used_goes(files):
    reader = CountingReader()
    cache = VolumeCache(2 * KILOBYTE, reader)
    for name in ("a", "b", "a", "c", "a", "b"):  # c pushes b out, not a
        cache.get(files / name)
    assert reader.names == ["a", "b", "c", "b"]
    assert cache.n_bytes == 2 * KILOBYTE


def test_a_volume_above_the_bound_is_returned_but_not_kept(files):
    reader = CountingReader()
    cache = VolumeCache(KILOBYTE - 1, reader)
    assert cache.get(files / "a").shape == (5, 10, 10)
    assert cache.n_bytes == 0
    cache.get(files / "a")
    assert reader.names == ["a", "a"]


def test_a_replaced_file_is_read_anew_and_its_old_volume_let_go(files):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader)
    old = cache.get(files / "a")
    (files / "new").write_text("other size")
    os.replace(files / "new", files / "a")
    assert cache.get(files / "a") is not old
    assert cache.n_bytes == KILOBYTE


def test_a_rewritten_file_of_equal_size_is_read_anew(files):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader)
    old = cache.get(files / "a")
    os.utime(files / "a", ns=(1, 1))
    assert cache.get(files / "a") is not old


def test_a_folder_changes_with_its_files(files):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader)
    old = cache.get(files)
    assert cache.get(files) is old
    os.utime(files / "b", ns=(1, 1))
    assert cache.get(files) is not old
    (files / "e").touch()
    cache.get(files)
    assert len(reader.names) == 3


def test_a_file_replaced_while_it_is_read_is_not_kept(files):
    def read(path):
        os.utime(path, ns=(1, 1))
        return Volume(np.zeros((5, 10, 10), np.int16), np.eye(4))

    cache = VolumeCache(10 * KILOBYTE, read)
    assert cache.get(files / "a").shape == (5, 10, 10)
    assert cache.n_bytes == 0


def test_clear_forgets(files):
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader)
    cache.get(files / "a")
    cache.clear()
    assert cache.n_bytes == 0
    cache.get(files / "a")
    assert reader.names == ["a", "a"]


def test_a_missing_file_is_the_readers_error(tmp_path):
    cache = VolumeCache(10 * KILOBYTE)
    with pytest.raises(UnreadableVolume, match=r"'gone.nii': there is no such file"):
        cache.get(tmp_path / "gone.nii")
    write_mask(np.ones((2, 2, 2), np.uint8), np.eye(4), tmp_path / "gone.nii")
    assert cache.get(tmp_path / "gone.nii").array.sum() == 8
