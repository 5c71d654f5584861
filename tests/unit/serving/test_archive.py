import io
import zipfile

import pytest

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.archive import unzip


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    content.seek(0)
    return content


def test_no_name_in_an_archive_leads_out_of_the_folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    files = unzip(zipped({"../../evil.dcm": b"a", "/etc/evil": b"b", "x/1.dcm": b"c"}), folder, max_bytes=10)
    assert [(name, path.read_bytes()) for name, path in files] == [("evil.dcm", b"a"), ("evil", b"b"), ("1.dcm", b"c")]
    assert all(path.parent == folder for _, path in files)
    assert sorted(tmp_path.iterdir()) == [folder]


def test_folders_and_what_macos_adds_are_left_out(tmp_path):
    files = unzip(zipped({"a/": b"", "a/.DS_Store": b"x", "__MACOSX/a/1.dcm": b"x", "a/1.dcm": b"y"}), tmp_path, 10)
    assert [name for name, _ in files] == ["1.dcm"]


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    content = zipped({"a": bytes(600), "b": bytes(600)})
    assert len(unzip(content, tmp_path, max_bytes=1200)) == 2
    (tmp_path / "again").mkdir()
    with pytest.raises(InvalidRequest, match="more than the limit of 1199 bytes"):
        unzip(content, tmp_path / "again", max_bytes=1199)


@pytest.mark.parametrize("damage", [b"", b"junk", b"PK\x03\x04junk"])
def test_what_is_no_archive_is_refused(damage, tmp_path):
    with pytest.raises(InvalidRequest, match="no zip file"):
        unzip(io.BytesIO(damage), tmp_path, max_bytes=10)


def test_a_damaged_archive_is_refused(tmp_path):
    content = bytearray(zipped({"a": bytes(range(256))}).getvalue())
    content[40:60] = bytes(20)
    with pytest.raises(InvalidRequest, match="no zip file"):
        unzip(io.BytesIO(bytes(content)), tmp_path, max_bytes=1000)
