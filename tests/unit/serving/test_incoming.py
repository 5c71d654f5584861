import io
import os
import shutil
import time
from pathlib import Path

import pytest

from deepgrow3d_app.serving.incoming import ABANDONED_S, Incoming, Leftovers
from deepgrow3d_app.serving.uploads import Upload
from deepgrow3d_app.volume.atomic_file import written_beside
from deepgrow3d_app.volume.atomic_folder import replaced_folder


def make_old(path):
    """As if it was left an hour ago, with all that is in it."""
    an_hour_ago = time.time() - ABANDONED_S - 1
    for entry in (*path.rglob("*"), path):
        os.utime(entry, (an_hour_ago, an_hour_ago))


@pytest.fixture
def incoming(tmp_path):
    return Incoming(tmp_path / "kept" / "incoming")


@pytest.fixture
def folder(tmp_path, incoming):
    return tmp_path / "kept" / "incoming"


def test_an_upload_waits_in_the_folder_and_is_gone_afterwards(incoming, folder):
    with Upload("a.nii", io.BytesIO(b"voxels")).staged(incoming, "ct.nii") as path:
        assert path.read_bytes() == b"voxels"
        assert path.parent.parent == folder
        assert path.parent.stat().st_mode & 0o077 == 0, "nobody else may read what it holds"
    assert list(folder.iterdir()) == []


def test_a_file_is_gone_after_an_error_and_else_is_whoever_asked_s(incoming, folder):
    with incoming.new_file(".zip") as kept:
        kept.write_bytes(b"cases")
    with pytest.raises(ZeroDivisionError), incoming.new_file(".zip"):
        raise ZeroDivisionError
    assert list(folder.iterdir()) == [kept]
    assert kept.suffix == ".zip"


def test_without_a_folder_of_its_own_it_is_the_temporary_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    incoming = Incoming(None)
    with incoming.new_folder() as folder:
        assert folder.parent == tmp_path
    (tmp_path / "of-another-program").touch()
    make_old(tmp_path / "of-another-program")
    incoming.remove_abandoned()
    assert [path.name for path in tmp_path.iterdir()] == ["of-another-program"]


def test_a_folder_that_was_cleared_away_is_made_again_and_a_disk_that_is_gone_is_not(tmp_path, incoming, folder):
    shutil.rmtree(folder.parent)
    incoming.remove_abandoned()
    with incoming.new_folder() as made:
        assert made.parent == folder
    shutil.rmtree(folder)
    with incoming.new_file(".zip") as made:
        assert made.parent == folder
    gone = Incoming(tmp_path / "disk" / "kept" / "incoming")
    shutil.rmtree(tmp_path / "disk")
    with pytest.raises(FileNotFoundError), gone.new_folder():
        pass
    assert not (tmp_path / "disk").exists()


def test_what_a_killed_server_left_in_the_folder_is_removed_by_age(incoming, folder):
    for name in ("old", "young"):
        (folder / name).mkdir()
        (folder / name / "ct.nii").write_bytes(b"voxels")
    (folder / "old.zip").write_bytes(b"cases")
    for name in ("old", "old.zip"):
        make_old(folder / name)
    incoming.remove_abandoned()
    assert [path.name for path in folder.iterdir()] == ["young"]


def test_a_folder_that_is_still_written_into_is_not_abandoned(incoming, folder):
    (folder / "series").mkdir()
    (folder / "series" / "1.dcm").write_bytes(b"slice")
    make_old(folder / "series")
    (folder / "series" / "1.dcm").write_bytes(b"slice and more")  # which the folder's own time does not tell
    incoming.remove_abandoned()
    assert (folder / "series" / "1.dcm").is_file()


def partials(folder):
    return set(folder.rglob(".*.part"))


def killed_in_the_middle(tmp_path):
    """What is left of an image, of a label and of a fetched series; returns their names."""
    studies, label = tmp_path / "studies", tmp_path / "studies" / "labels" / "final"
    label.mkdir(parents=True)
    left = []
    for file in (studies / "ct.nii.gz", label / "ct.nii.gz"):
        with written_beside(file, io.BytesIO(b"voxels")) as partial:
            left.append(partial)
    with replaced_folder(studies / ".deepgrow3d" / "series" / "1.2.3") as partial:
        left.append(partial)
    for path in left[:2]:
        path.write_bytes(b"vox")
    left[2].mkdir()
    (left[2] / "1.dcm").write_bytes(b"slice")
    return left


def test_what_a_killed_server_left_among_the_studies_is_removed_when_it_is_old(tmp_path):
    left = killed_in_the_middle(tmp_path)
    for path in left[1:]:
        make_old(path)
    leftovers = Leftovers([tmp_path / "studies"])
    leftovers.remove_abandoned()
    assert partials(tmp_path) == {left[0]}, "it may be written now, by a server that shares the folder"
    make_old(left[0])
    leftovers.remove_abandoned()
    assert partials(tmp_path) == set()


def test_files_of_others_and_files_that_are_complete_stay(tmp_path):
    others = [tmp_path / name for name in ("ct.nii.gz", ".notes.part", "video.part", f".{'a' * 32}.part.txt")]
    for file in others:
        file.write_bytes(b"")
        make_old(file)
    Leftovers([tmp_path]).remove_abandoned()
    assert [file for file in others if not file.is_file()] == []


def test_what_another_server_completes_meanwhile_is_there(tmp_path):
    file = tmp_path / "ct.nii.gz"
    leftovers = Leftovers([tmp_path])
    with written_beside(file, io.BytesIO(b"voxels")) as partial:
        leftovers.remove_abandoned()
        Path(partial).rename(file)
    make_old(file)
    leftovers.remove_abandoned()
    assert file.read_bytes() == b"voxels"
