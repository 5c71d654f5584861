import io
import struct
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


def listing(n_entries, *, has_zip64=False):
    """An archive with so many folders, of 47 bytes each in its list and with nothing else in it."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"/"
    size = n_entries * len(entry)
    ends = b""
    if has_zip64:
        ends = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n_entries, n_entries, size, 0)
        ends += struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    n_told, size_told = (0xFFFF, 0xFFFFFFFF) if has_zip64 else (n_entries & 0xFFFF, size)
    ends += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, n_told, n_told, size_told, 0, 0)
    return io.BytesIO(entry * n_entries + ends)


@pytest.fixture
def listed(monkeypatch):
    """The entries that an object was made of."""
    made = []

    class ZipInfo(zipfile.ZipInfo):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(zipfile, "ZipInfo", ZipInfo)
    return made


@pytest.mark.parametrize("has_zip64", [False, True])
@pytest.mark.parametrize(
    ("n_entries", "says"),
    [
        (400_000, "list of files takes 18800000 bytes, over the limit of 6400000"),
        (60_001, "lists 60001 files and folders, over the limit of 60000"),
    ],
)
def test_a_list_that_is_too_long_is_refused_before_it_is_taken_apart(tmp_path, listed, n_entries, says, has_zip64):
    with pytest.raises(InvalidRequest, match=says):
        unzip(listing(n_entries, has_zip64=has_zip64), tmp_path, max_bytes=10)
    assert listed == []


@pytest.mark.parametrize("has_zip64", [False, True])
def test_a_list_within_the_bounds_is_taken_apart(tmp_path, listed, has_zip64):
    assert unzip(listing(30_000, has_zip64=has_zip64), tmp_path, max_bytes=10) == []
    assert len(listed) == 30_000


def test_too_many_files_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="holds 20001 files, over the limit of 20000"):
        unzip(zipped({str(number): b"" for number in range(20_001)}), tmp_path, max_bytes=10)
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_hold_what_begins_an_entry_of_a_list(tmp_path):
    content = b"PK\1\2" * 100_000
    ((_, path),) = unzip(zipped({"nested.zip": content}), tmp_path, max_bytes=len(content))
    assert path.read_bytes() == content
