"""The cache: what is read how often, by whom, and what is let go."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deepgrow3d_app.errors import UnreadableVolume
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.decoded_folder import DecodedFolder
from deepgrow3d_app.volume.files import write_mask
from deepgrow3d_app.volume.volume import Volume

KILOBYTE = 1000


class CountingReader:
    """Volumes of one kilobyte, and the names that were asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, path: str) -> Volume:
        self.names.append(os.path.basename(path))
        return Volume(np.zeros((5, 10, 10), np.int16), np.eye(4), name=path)


@pytest.fixture
def files(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_text(name)
    return tmp_path


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


def test_requests_for_one_file_decode_it_once(files):
    n_threads = 8
    together = threading.Barrier(n_threads)
    is_decoding, may_finish = threading.Event(), threading.Event()
    reader = CountingReader()

    def slow(path):
        is_decoding.set()
        assert may_finish.wait(5)
        return reader(path)

    cache = VolumeCache(10 * KILOBYTE, slow)

    def request(_):
        together.wait(5)
        return cache.get(files / "a")

    with ThreadPoolExecutor(n_threads) as pool:
        answers = [pool.submit(request, number) for number in range(n_threads)]
        assert is_decoding.wait(5)
        assert not any(answer.done() for answer in answers)  # all wait, none got half a volume
        may_finish.set()
        volumes = [answer.result(5) for answer in answers]
    assert reader.names == ["a"]
    assert all(volume is volumes[0] for volume in volumes)


def test_different_files_decode_side_by_side(files):
    """Each read waits for the other to have begun: one after the other, they would never end."""
    both_begun = threading.Barrier(2)
    reader = CountingReader()

    def read(path):
        both_begun.wait(5)
        return reader(path)

    cache = VolumeCache(10 * KILOBYTE, read)
    with ThreadPoolExecutor(2) as pool:
        volumes = list(pool.map(cache.get, (files / "a", files / "b")))
    assert [os.path.basename(volume.name) for volume in volumes] == ["a", "b"]
    assert sorted(reader.names) == ["a", "b"]


def test_an_error_reaches_all_who_wait_and_is_not_kept(files):
    has_begun, may_fail = threading.Event(), threading.Event()
    reader = CountingReader()
    attempts: list[str] = []

    def first_fails(path):
        attempts.append(path)
        if len(attempts) > 1:
            return reader(path)
        has_begun.set()
        assert may_fail.wait(5)
        raise UnreadableVolume("a", "it is damaged")

    cache = VolumeCache(10 * KILOBYTE, first_fails)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, files / "a")
        assert has_begun.wait(5)
        second = pool.submit(cache.get, files / "a")
        while not second.running():
            threading.Event().wait(0.001)
        threading.Event().wait(0.05)  # let it reach the wait
        may_fail.set()
        for answer in (first, second):
            with pytest.raises(UnreadableVolume, match="it is damaged"):
                answer.result(5)
    assert cache.get(files / "a").shape == (5, 10, 10)
    assert len(attempts) == 2


def test_a_missing_file_is_the_readers_error(tmp_path):
    cache = VolumeCache(10 * KILOBYTE)
    with pytest.raises(UnreadableVolume, match=r"'gone.nii': there is no such file"):
        cache.get(tmp_path / "gone.nii")
    write_mask(np.ones((2, 2, 2), np.uint8), np.eye(4), tmp_path / "gone.nii")
    assert cache.get(tmp_path / "gone.nii").array.sum() == 8


# --- with a folder


@pytest.fixture
def folder(tmp_path_factory):
    return DecodedFolder(tmp_path_factory.mktemp("cache") / "decoded", 100 * KILOBYTE)


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


def test_threads_share_one_decoding_into_the_folder(files, folder):
    n_threads = 8
    together = threading.Barrier(n_threads)
    reader = CountingReader()
    cache = VolumeCache(10 * KILOBYTE, reader, folder)

    def request(_):
        together.wait(5)
        return cache.get(files / "a")

    with ThreadPoolExecutor(n_threads) as pool:
        volumes = list(pool.map(request, range(n_threads)))
    assert reader.names == ["a"]
    assert all(isinstance(volume.array.base, np.memmap) for volume in volumes)


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


# --- ahead of time


def test_a_prefetched_volume_is_there_or_on_its_way(files, folder):
    has_begun, may_finish = threading.Event(), threading.Event()
    reader = CountingReader()

    def slow(path):
        has_begun.set()
        assert may_finish.wait(5)
        return reader(path)

    cache = VolumeCache(10 * KILOBYTE, slow, folder)
    cache.prefetch(files / "a")
    assert has_begun.wait(5)
    cache.prefetch(files / "b")  # one at a time
    may_finish.set()
    cache.get(files / "a")
    assert reader.names == ["a"]


def test_errors_of_a_prefetch_are_told_to_whoever_asks(files):
    attempts = []

    def read(path):
        attempts.append(path)
        raise UnreadableVolume("a", "it is damaged")

    cache = VolumeCache(10 * KILOBYTE, read)
    for n_attempts in (1, 2):  # the second shows that the first has made way
        while len(attempts) < n_attempts:
            cache.prefetch(files / "a")
            threading.Event().wait(0.001)
    with pytest.raises(UnreadableVolume, match="it is damaged"):
        cache.get(files / "a")
