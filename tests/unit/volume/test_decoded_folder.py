"""Decoded volumes on disk: what comes back is what was stored, or nothing."""

from __future__ import annotations

import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.volume import decoded_folder
from deepgrow3d_app.volume.decoded_folder import PAGE_BYTES, DecodedFolder
from deepgrow3d_app.volume.signature import Signature
from deepgrow3d_app.volume.volume import Volume

SIGNATURE: Signature = (("", 1, 2, 3),)
ENTRY_BYTES = PAGE_BYTES + 2000
"""What an entry of :func:`constant` takes: a page of text, and a thousand voxels."""


def constant(value: int) -> Volume:
    return Volume(np.full((10, 10, 10), value, np.int16, order="F"), np.eye(4), name=f"{value}.nii")


@pytest.fixture
def folder(tmp_path) -> DecodedFolder:
    return DecodedFolder(tmp_path / "decoded", 10 * ENTRY_BYTES)


@pytest.fixture
def stored(folder) -> Path:
    """The one entry of ``folder``, of the source ``/ct``."""
    assert folder.store("/ct", SIGNATURE, constant(-1000))
    (entry,) = folder.path.iterdir()
    return entry


def loaded(folder: DecodedFolder, source: str = "/ct") -> Volume:
    volume = folder.load(source, SIGNATURE)
    assert volume is not None
    return volume


@pytest.mark.parametrize("layout", ["F", "C", "view"])
@pytest.mark.parametrize("modality", [None, "MR", "CT"])
def test_a_volume_comes_back_as_it_was(folder, counted_voxels, oblique_affine, layout, modality):
    array = counted_voxels[::-1, ::2] if layout == "view" else np.array(counted_voxels, order=layout)
    volume = Volume(array, oblique_affine, 0.1, -1 / 3, "Bauch \udcfc 腹部.nii.gz", modality)
    assert folder.store("/ct", SIGNATURE, volume)
    found = loaded(folder)
    np.testing.assert_array_equal(found.array, array)
    np.testing.assert_array_equal(found.affine, oblique_affine)
    assert (found.slope, found.intercept) == (volume.slope, volume.intercept)
    assert (found.name, found.modality, found.is_ct) == (volume.name, modality, volume.is_ct)
    assert found.array.flags.f_contiguous == (layout == "F")


def test_the_array_is_a_read_only_map(folder, stored):
    array = loaded(folder).array
    assert isinstance(array.base, np.memmap)
    assert type(array) is np.ndarray
    assert not array.flags.writeable


def test_a_volume_knows_whether_it_is_a_ct_without_its_voxels(folder, stored):
    content = stored.read_bytes()
    stored.write_bytes(content[:-2000] + bytes(2000))
    volume = loaded(folder)
    assert volume.array.max() == 0
    assert volume.is_ct


def test_another_version_and_another_source_are_not_found(folder, stored):
    assert folder.load("/ct", (("", 1, 2, 4),)) is None
    assert folder.load("/other", SIGNATURE) is None


def rewrite(entry: Path, **changes: object) -> None:
    content = entry.read_bytes()
    head = json.dumps(json.loads(content[:PAGE_BYTES]) | changes).encode()
    entry.write_bytes(head.ljust(PAGE_BYTES - 1) + b"\n" + content[PAGE_BYTES:])


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: os.truncate(entry, 0),
        lambda entry: os.truncate(entry, 100),
        lambda entry: os.truncate(entry, PAGE_BYTES),
        lambda entry: os.truncate(entry, ENTRY_BYTES - 1),
        lambda entry: os.truncate(entry, ENTRY_BYTES + 1),
        lambda entry: entry.write_bytes(bytes(ENTRY_BYTES)),
        lambda entry: entry.write_bytes(b"\xff" + entry.read_bytes()[1:]),
        lambda entry: entry.write_bytes(b"[]\n"),
        lambda entry: rewrite(entry, format=decoded_folder.FORMAT + 1),
        lambda entry: rewrite(entry, shape=[10, 10]),
        lambda entry: rewrite(entry, shape=[10, 10, 11]),
        lambda entry: rewrite(entry, order="X"),
        lambda entry: rewrite(entry, affine=[[1, 2], [3, 4]]),
        lambda entry: rewrite(entry, affine=np.zeros((4, 4)).tolist()),
        lambda entry: rewrite(entry, slope=None),
    ],
)
def test_a_damaged_entry_is_not_served_and_can_be_replaced(folder, stored, damage):
    damage(stored)
    assert folder.load("/ct", SIGNATURE) is None
    assert folder.store("/ct", SIGNATURE, constant(7))
    assert loaded(folder).array.max() == 7


def test_what_was_not_used_for_longest_goes(tmp_path):
    folder = DecodedFolder(tmp_path / "decoded", 2 * ENTRY_BYTES)
    for number, source in enumerate("ab"):
        folder.store(source, SIGNATURE, constant(number))
    loaded(folder, "a")
    folder.store("c", SIGNATURE, constant(2))
    assert [folder.load(source, SIGNATURE) is not None for source in "abc"] == [True, False, True]
    assert folder.n_bytes == 2 * ENTRY_BYTES


def test_a_new_version_takes_the_place_of_the_old_one(tmp_path):
    folder = DecodedFolder(tmp_path / "decoded", 2 * ENTRY_BYTES)
    for source in ("other", "ct", "ct", "ct"):
        folder.store(source, SIGNATURE, constant(1))
    assert folder.load("other", SIGNATURE) is not None
    assert folder.n_bytes == 2 * ENTRY_BYTES


def test_a_volume_above_the_bound_is_not_kept_and_displaces_nothing(tmp_path):
    folder = DecodedFolder(tmp_path / "decoded", ENTRY_BYTES)
    folder.store("small", SIGNATURE, constant(1))
    large = Volume(np.zeros((10, 10, 11), np.int16), np.eye(4))
    assert not folder.store("large", SIGNATURE, large)
    assert folder.load("small", SIGNATURE) is not None


def test_a_volume_outlives_its_entry(folder, stored):
    before = loaded(folder)
    folder.store("/ct", SIGNATURE, constant(7))
    replaced = loaded(folder)
    folder.clear()
    assert folder.load("/ct", SIGNATURE) is None
    assert (before.array == -1000).all()
    assert (replaced.array == 7).all()


def test_nobody_else_may_look_at_patients(folder, stored):
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600


def test_a_full_disk_is_left_alone(folder, stored, monkeypatch, caplog):
    monkeypatch.setattr(decoded_folder, "KEPT_FREE_BYTES", 1 << 60)
    assert not folder.store("/data/other.nii", SIGNATURE, constant(7))
    assert list(folder.path.iterdir()) == []  # a cache is the first to give way
    assert [record.getMessage() for record in caplog.records] == [
        "The decoded copy of other.nii is not kept on disk: [Errno 28] No space left on device"
    ]


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path, caplog):
    (tmp_path / "file").touch()
    folder = DecodedFolder(tmp_path / "file" / "decoded", 10 * ENTRY_BYTES)
    assert not folder.store("/ct", SIGNATURE, constant(7))
    assert folder.load("/ct", SIGNATURE) is None
    folder.remove("/ct")
    folder.clear()
    assert (folder.n_bytes, folder.remove_orphans()) == (0, 0)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_a_folder_that_may_only_be_read_is_read(folder, stored):
    stored.chmod(0o400)
    folder.path.chmod(0o500)
    try:
        assert loaded(folder).array.max() == -1000
    finally:
        folder.path.chmod(0o700)


def test_remains_of_killed_processes_go_and_what_is_not_ours_stays(folder, stored):
    old, new, foreign = (folder.path / name for name in (".old.part", ".new.part", "letter.txt"))
    for file in (old, new, foreign):
        file.touch()
    an_hour_ago = time.time() - decoded_folder.ABANDONED_S - 1
    os.utime(old, (an_hour_ago, an_hour_ago))
    folder.store("/other", SIGNATURE, constant(7))
    folder.clear()
    assert set(folder.path.iterdir()) == {new, foreign}


def test_entries_whose_source_is_gone_are_orphans(folder, tmp_path):
    (tmp_path / "there.nii").touch()
    for name in ("there.nii", "gone.nii", "damaged.nii"):
        folder.store(str(tmp_path / name), SIGNATURE, constant(1))
    os.truncate(folder._entry(str(tmp_path / "damaged.nii")), 10)
    assert folder.remove_orphans() == 2
    assert folder.load(str(tmp_path / "there.nii"), SIGNATURE) is not None


def test_threads_and_processes_never_see_a_part_or_a_mixture(tmp_path):
    """Two objects on one folder stand for two processes; it holds two of the four sources at a time."""
    folders = [DecodedFolder(tmp_path / "decoded", 2 * ENTRY_BYTES) for _ in range(2)]
    values = {f"/{value}": value for value in (1, 2, 3, 4)}

    def work(number: int) -> int:
        folder, generator, found = folders[number % 2], np.random.default_rng(number), 0
        for source in generator.choice(list(values), 100):
            volume = folder.load(source, SIGNATURE)
            if volume is None:
                folder.store(source, SIGNATURE, constant(values[source]))
            else:
                found += 1
                assert volume.name == f"{values[source]}.nii"
                assert (volume.array == values[source]).all()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) > 0
    folders[0].store("/last", SIGNATURE, constant(5))
    assert folders[1].n_bytes <= 2 * ENTRY_BYTES
    assert not list((tmp_path / "decoded").glob("*.part"))
