import io
import os
import time
import zipfile

import numpy as np
import pytest

from deepgrow3d_app.errors import Busy, InvalidRequest, NotFound, UnreadableVolume
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.sessions import Sessions
from deepgrow3d_app.serving.uploads import Upload
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import encode_mask

VOLUME = encode_mask(np.zeros((4, 5, 6), np.uint8), np.eye(4), ".nii.gz")


def upload(content=VOLUME, name="a.nii.gz"):
    return Upload(name, io.BytesIO(content))


@pytest.fixture
def make(tmp_path):
    def make_sessions(max_bytes=1 << 20):
        return Sessions(
            tmp_path, VolumeCache(1 << 20), ClickLog(None), expiry_s=3600, max_bytes=max_bytes, max_image_bytes=1 << 20
        )

    return make_sessions


def test_a_session_is_found_until_it_is_removed(make, tmp_path):
    sessions = make()
    session = sessions.add([upload()])
    assert sessions.get(session.session_id) == session
    assert session.image.read_bytes() == VOLUME
    assert sessions.remove(session.session_id) == session
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound, match="PUT /session/"):
        sessions.get(session.session_id)


def test_where_their_folder_is_cleared_away_new_sessions_are_kept(make, tmp_path):
    sessions = make()
    tmp_path.rmdir()
    session = sessions.add([upload()])
    assert sessions.get(session.session_id) == session


def test_a_session_outlives_the_server(make):
    session = make().add([upload()])
    assert make().get(session.session_id) == session


def test_what_viewers_are_told(make):
    info = make().add([upload()], expiry_s=60).to_json()
    assert set(info) == {"name", "path", "image", "meta", "create_ts", "last_access_ts", "expiry"}
    assert info["expiry"] == 60


@pytest.mark.parametrize(("asked_s", "kept_s"), [(0, 3600), (60, 60), (10**9, 3600)])
def test_nobody_gets_more_time_than_there_is(make, asked_s, kept_s):
    assert make().add([upload()], expiry_s=asked_s).expiry_s == kept_s


def test_an_unused_session_expires_and_a_used_one_does_not(make, tmp_path):
    sessions = make()
    unused, used = sessions.add([upload()]), sessions.add([upload()])
    long_ago = time.time() - 3700
    for session in (unused, used):
        os.utime(session.folder / "session.json", (long_ago, long_ago + 200))
    sessions.get(used.session_id, touch=True)
    os.utime(unused.folder / "session.json", (long_ago, long_ago))
    assert sessions.remove_expired() == 1
    assert [folder.name for folder in tmp_path.iterdir()] == [used.session_id]
    with pytest.raises(NotFound):
        sessions.get(unused.session_id)


def test_only_what_is_ours_is_cleaned_up(make, tmp_path):
    (tmp_path / "notes").mkdir()
    interrupted = tmp_path / "b0d2f8f6-0000-4000-8000-000000000000"
    interrupted.mkdir()
    os.utime(interrupted, (time.time() - 3700,) * 2)
    assert make().remove_expired() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_what_arrives_in_another_process_is_left_alone(make, tmp_path, monkeypatch):
    sessions, of_another_process = make(), make()
    read = VolumeCache.get

    def clean_up_meanwhile(cache, path):
        of_another_process.remove_expired()
        return read(cache, path)

    monkeypatch.setattr(VolumeCache, "get", clean_up_meanwhile)
    session = sessions.add([upload()])
    assert sessions.get(session.session_id) == session


@pytest.mark.parametrize("is_expired", [False, True])
def test_a_removed_session_leaves_no_volume_in_memory(tmp_path, is_expired):
    volumes = VolumeCache(1 << 20)
    sessions = Sessions(tmp_path, volumes, ClickLog(None), expiry_s=3600, max_bytes=1 << 20, max_image_bytes=1 << 20)
    session = sessions.add([upload()])
    assert volumes.n_bytes == 4 * 5 * 6 * 2
    if is_expired:
        os.utime(session.folder / "session.json", (0, 0))
        sessions.remove_expired()
    else:
        sessions.remove(session.session_id)
    assert volumes.n_bytes == 0


@pytest.mark.parametrize(
    ("uploads", "options", "fault"),
    [
        ([(b"garbage", "a.nii.gz")], {}, UnreadableVolume),
        ([(VOLUME[:40], "a.nii.gz")], {}, UnreadableVolume),
        ([(b"garbage", "a.dcm"), (b"garbage", "b.dcm")], {}, UnreadableVolume),
        ([(VOLUME, "a.nii.gz"), (VOLUME, "b.nii.gz")], {}, InvalidRequest),
        ([(VOLUME, "a.seg.nrrd")], {}, InvalidRequest),
        ([(VOLUME, "a.zip")], {"uncompress": True}, InvalidRequest),
        ([(VOLUME, "a.zip"), (VOLUME, "b.zip")], {"uncompress": True}, InvalidRequest),
        ([], {}, InvalidRequest),
    ],
)
def test_what_is_no_image_leaves_nothing_behind(make, tmp_path, uploads, options, fault):
    with pytest.raises(fault):
        make().add([upload(*one) for one in uploads], **options)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_with_one_volume(make):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../study/ct.nii.gz", VOLUME)
    session = make().add([upload(content.getvalue(), "study.zip")], uncompress=True)
    assert session.image.name == "image.nii.gz"
    assert session.image.read_bytes() == VOLUME


def test_full_is_full_until_a_session_is_removed(make):
    sessions = make(max_bytes=100)
    first = sessions.add([upload()])
    with pytest.raises(Busy, match=r"limit is 100\. Delete sessions"):
        sessions.add([upload()])
    sessions.remove(first.session_id)
    sessions.add([upload()])
