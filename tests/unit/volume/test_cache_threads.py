"""The cache, asked by many at once, or ahead of time."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deepgrow3d_app.errors import UnreadableVolume
from deepgrow3d_app.volume.cache import VolumeCache
from tests.unit.volume.conftest import KILOBYTE, CountingReader


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
