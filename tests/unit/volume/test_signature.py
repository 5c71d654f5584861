"""What counts as a change of an image."""

from __future__ import annotations

import os

from deepgrow3d_app.volume.signature import signature_of


def test_a_file_is_told_from_one_of_equal_size_and_time(tmp_path):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("old")
    before = signature_of(path)
    assert signature_of(path) == before
    other.write_text("new")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    while other.stat().st_ctime_ns == path.stat().st_ctime_ns:  # written within one tick of the file system's clock
        other.chmod(0o600)
    os.replace(other, path)
    assert signature_of(path) != before


def test_a_folder_is_its_files(tmp_path):
    for name in "ba":
        (tmp_path / name).write_text(name)
    before = signature_of(tmp_path)
    assert [name for name, *_ in before] == ["a", "b"]
    (tmp_path / "folder").mkdir()
    assert signature_of(tmp_path) == before
    (tmp_path / "c").touch()
    assert signature_of(tmp_path) != before


def test_what_cannot_be_seen_has_none(tmp_path):
    assert signature_of(tmp_path / "gone") == ()
