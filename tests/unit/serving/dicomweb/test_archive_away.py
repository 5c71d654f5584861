"""One server before an archive that is away, slow, or says too little."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deepgrow3d_app.errors import ServerFault
from deepgrow3d_app.serving.dicomweb import images
from deepgrow3d_app.serving.dicomweb.listed import ListedSegmentations
from deepgrow3d_app.serving.doubts import Doubts
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import read_mask, read_volume
from tests.unit.serving.dicomweb.conftest import voxels_in, wait_for_lists


def test_an_archive_that_did_not_answer_is_left_alone_for_a_while(archive, server, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(images, "time", SimpleNamespace(monotonic=lambda: now[0]))
    archive.is_away = True
    slow = archive.images

    def after_half_a_minute():
        now[0] += 30
        return slow()

    monkeypatch.setattr(archive, "images", after_half_a_minute)
    studies = server("one")
    assert studies.list_images() == studies.list_images() == []
    assert archive.asked == 1
    now[0] += images.AWAY_S
    archive.is_away = False
    assert studies.list_images() == [archive.uid]


def test_clients_cannot_say_what_is_on_the_server(archive, server, save):
    """What is said to be a superseded segmentation there is removed."""
    one = server("one")
    ours = {"study_uid": archive.study_uid, "series_uid": archive.uid, "instance_uid": "1.2", "made_at": "9"}
    forged = {"dicom_seg": {**ours, "is_ours": True, "file_of": "1.2"}}
    save(one, 1, **forged)
    (first,) = archive.stored
    one.update_label_info(archive.uid, "final", forged)
    removed = []

    def remove(study_uid, series_uid, instance_uid):
        removed.append(series_uid)
        return True

    archive.remove_segmentation = remove
    save(one, 2, "draft", **forged)
    one.remove_label(archive.uid, "draft")
    save(one, 2)
    assert removed == [first]
    one.update_image_info(archive.uid, {"StudyInstanceUID": "../..", "note": "ok"})
    info = one.get_image_info(archive.uid)
    assert (info["StudyInstanceUID"], info["note"]) == (archive.study_uid, "ok")


def test_a_save_that_is_refused_after_it_was_stored_on_the_server_is_taken_back(archive, server, save, monkeypatch):
    one = server("one")
    save(one, 1)
    wait_for_lists()
    one.refresh()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("deepgrow3d_app.serving.studies_index.written_beside", full)
        with pytest.raises(OSError, match="No space"):
            save(one, 2)
    wait_for_lists()
    (stored,) = archive.segmentations(set()).described
    assert stored.series_number == 9001
    assert voxels_in(one.label_file(archive.uid, "final")) == 1


def test_a_save_that_was_too_slow_for_the_server_to_say_so_is_taken_back(archive, server, save):
    one = server("one")
    save(one, 1)
    store = archive.store

    def too_slow(content):
        store(content)
        raise ServerFault(archive.address.url, "it does not answer")

    archive.store = too_slow
    with pytest.raises(ServerFault):
        save(one, 2)
    assert len(archive.stored) == 1
    archive.is_readable = False  # the label is here as before
    assert voxels_in(one.label_file(archive.uid, "final")) == 1


def test_what_the_server_does_not_keep_replaces_nothing_there(archive, server, save):
    """Some answer that all is well, and a filter of theirs discards the file."""
    one = server("one")
    save(one, 1)
    archive.store = lambda content: None
    save(one, 2)
    (stored,) = archive.segmentations(set()).described
    assert stored.series_number == 9001
    assert voxels_in(one.label_file(archive.uid, "final")) == 2


def test_a_list_that_is_cut_short_drops_no_label(archive, server, save):
    one = server("one")
    save(one, 1)
    one.update_label_info(archive.uid, "final", {"segmentationMeta": {"status": "approved"}})
    wait_for_lists()
    one.refresh()
    archive.segmentations = lambda study_uids: ListedSegmentations(frozenset(), ())
    one.refresh()
    assert one.get_label_info(archive.uid, "final")["segmentationMeta"] == {"status": "approved"}


def test_a_label_that_the_server_does_not_list_yet_stays(archive, server, save):
    one = server("one")
    listed = archive.segmentations
    archive.segmentations = lambda study_uids: ListedSegmentations(frozenset(), ())
    save(one, 1)
    wait_for_lists()
    assert voxels_in(one.label_file(archive.uid, "final")) == 1
    archive.segmentations = listed
    assert one.status()["completed"] == 1


def test_a_label_lies_on_the_series_as_it_is_now(archive, server, save, tmp_path):
    *archive.files, late = archive.files
    late.rename(tmp_path / "late.dcm")
    one = server("one")
    save(one, 1)
    assert read_mask(one.label_file(archive.uid, "final"))[0].shape == (6, 5, 3)
    (tmp_path / "late.dcm").rename(late)
    archive.files.append(late)
    wait_for_lists()
    one.refresh()
    assert read_volume(one.image_file(archive.uid)).shape == (6, 5, 4)
    assert read_mask(one.label_file(archive.uid, "final"))[0].shape == (6, 5, 4)
    assert voxels_in(one.label_file(archive.uid, "final")) == 1


def test_a_draft_needs_no_server(archive, server, save):
    one = server("one")
    one.image_file(archive.uid)
    wait_for_lists()
    archive.is_away = True
    assert save(one, 1, "draft").number == 1
    assert voxels_in(one.label_file(archive.uid, "draft")) == 1


def test_what_is_here_is_shown_while_the_server_is_away(archive, server, save):
    one = server("one")
    save(one, 1)
    wait_for_lists()
    archive.is_away = True
    assert one.list_images() == [archive.uid]
    archive.may_answer.clear()  # whoever asks now waits
    assert voxels_in(one.label_file(archive.uid, "final")) == 1
    archive.may_answer.set()


def test_only_one_of_many_looks_at_the_server(archive, server):
    one = server("one", refresh_s=60.0)
    asked = archive.asked
    one._next_refresh = 0.0
    archive.may_answer.clear()
    archive.is_asked.clear()
    asking = [threading.Thread(target=one.refresh_if_old, kwargs={"waits": True}) for _ in range(4)]
    for thread in asking:
        thread.start()
    assert archive.is_asked.wait(30)
    archive.may_answer.set()
    for thread in asking:
        thread.join(30)
    assert archive.asked == asked + 1


def test_an_archive_is_not_fetched_to_be_scored(archive, server, tmp_path):
    fetched = []
    fetch = archive.fetch

    def counted(study_uid, series_uid, folder):
        fetched.append(series_uid)
        return fetch(study_uid, series_uid, folder)

    archive.fetch = counted
    mask = BoxedMask.of(np.ones((6, 5, 4), np.uint8))
    network = SimpleNamespace(predict=lambda volume, clicks: SimpleNamespace(boxed=mask))
    model: Any = SimpleNamespace(digest=lambda: "net", loaded=SimpleNamespace(predictors=network))
    one = server("one", refresh_s=60.0)
    doubts = Doubts(None, model, VolumeCache(1 << 20), lambda: one, lambda image: [(1, 1, 1)])
    images = one.get_unlabeled_images()
    assert images == [archive.uid]
    for _ in range(2):
        assert doubts.scores(images) == {}
        doubts.wait(30)
    assert fetched == []
    one.image_file(archive.uid)  # somebody opens it
    assert doubts.scores(images) == {}
    doubts.wait(30)
    assert doubts.scores(images) == {archive.uid: 0.0}
    assert fetched == [archive.uid]
