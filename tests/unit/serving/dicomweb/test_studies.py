"""Two servers before one archive: labels that one of them stored and the other replaces."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from deepgrow3d_app.errors import NotFound, ServerFault, Superseded
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.dicomweb import images
from deepgrow3d_app.serving.dicomweb.content_time import instant_of, made_at
from deepgrow3d_app.serving.dicomweb.listed import ImageSeries, ListedSegmentations, StoredSegmentation
from deepgrow3d_app.serving.dicomweb.studies import DicomWebStudies
from deepgrow3d_app.serving.doubts import Doubts
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.dicom_series import Examination, write_dicom_series
from deepgrow3d_app.volume.files import read_mask, read_volume, write_mask
from deepgrow3d_app.volume.volume import Volume

NAMES = {"label_info": [{"name": "liver", "idx": 1}]}


class Archive:
    """What the servers know as a :class:`Pacs`: one series, and the segmentations that they store."""

    def __init__(self, files):
        self.address = SimpleNamespace(url="http://archive/dicom-web")
        self.files = files
        header = dcmread(files[0])
        self.uid = str(header.SeriesInstanceUID)
        self.study_uid = str(header.StudyInstanceUID)
        self.stored = {}
        self.is_readable = True
        self.is_away = False
        self.asked = 0
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def images(self):
        self.asked += 1
        self.is_asked.set()
        assert self.may_answer.wait(30)
        if self.is_away:
            raise ServerFault(self.address.url, "it does not answer")
        return [ImageSeries(self.uid, self.study_uid, "CT", len(self.files), "", "", "")]

    def segmentations(self, study_uids):
        return ListedSegmentations(frozenset(self.stored), tuple(self._listed(one) for one in self.stored.values()))

    def fetch(self, study_uid, series_uid, folder):
        for file in self.files:
            shutil.copy(file, folder)
        return len(self.files)

    def fetch_one(self, study_uid, series_uid):
        if not self.is_readable:
            raise ServerFault(self.address.url, "its disk is broken")
        return self.stored[series_uid]

    def store(self, content):
        self.stored[str(dcmread(BytesIO(content)).SeriesInstanceUID)] = content

    def instances(self, study_uid, series_uid):
        return {str(dcmread(BytesIO(self.stored[series_uid])).SOPInstanceUID)} if series_uid in self.stored else set()

    def remove_segmentation(self, study_uid, series_uid, instance_uid):
        return self.instances(study_uid, series_uid) == {instance_uid} and self.stored.pop(series_uid) is not None

    def change(self, series_uid, **values):
        """Make the header of what is stored another one."""
        header = dcmread(BytesIO(self.stored[series_uid]))
        for name, value in values.items():
            setattr(header, name, value)
        content = BytesIO()
        header.save_as(content)
        self.stored[series_uid] = content.getvalue()

    def _listed(self, content):
        header = dcmread(BytesIO(content))
        return StoredSegmentation(
            str(header.SeriesInstanceUID),
            self.study_uid,
            str(header.SOPInstanceUID),
            self.uid,
            made_at(header),
            str(header.Manufacturer),
            int(header.SeriesNumber),
        )


@pytest.fixture
def archive(tmp_path):
    voxels = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    volume = Volume(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]))
    return Archive(write_dicom_series(volume, tmp_path / "series", Examination("ann", "Ann^A", "study", "series")))


@pytest.fixture
def server(tmp_path, archive):
    """Makes a server with an empty folder of its own."""

    def make(name, refresh_s=0.0):
        (tmp_path / name).mkdir()
        cache = VolumeCache(1 << 20)
        return DicomWebStudies(
            tmp_path / name,
            archive,
            cache,
            ClickLog(None),
            max_bytes=1 << 20,
            refresh_s=refresh_s,
            removes_superseded=True,
        )

    return make


@pytest.fixture
def save(tmp_path, archive):
    """Saves a label of so many voxels."""

    def write(studies, n_voxels, tag="final", **info):
        volume = read_volume(archive.files[0].parent)
        mask = (np.arange(volume.array.size) < n_voxels).astype(np.uint8).reshape(volume.shape)
        write_mask(mask, volume.affine, tmp_path / "label.nii.gz")
        return studies.save_version(archive.uid, str(tmp_path / "label.nii.gz"), tag, {**NAMES, **info})

    return write


def wait_for_lists():
    """Until no server looks at the archive by the way: what it finds there could be older than the next save."""
    for thread in threading.enumerate():
        if thread.name == "dicomweb-list":
            thread.join(30)


def voxels_in(file):
    return np.count_nonzero(read_mask(file)[0])


def voxels_in_history(studies, uid):
    history = studies.history
    return [voxels_in(history.file(uid, "final", version.number)) for version in history.versions(uid, "final")]


def test_the_label_that_another_server_stored_is_shown(archive, server, save):
    one, other = server("one"), server("other")
    save(one, 1)
    assert voxels_in(one.label_file(archive.uid, "final")) == 1
    wait_for_lists()
    save(other, 2)
    assert voxels_in(one.label_file(archive.uid, "final")) == 2


def test_what_nobody_opened_here_is_in_the_history_once_it_is_replaced(archive, server, save):
    save(server("one"), 1)
    other = server("other")
    save(other, 2)
    assert voxels_in_history(other, archive.uid) == [1, 2]
    (stored,) = archive.segmentations(set()).described
    assert stored.series_number == 9002


def test_a_label_that_cannot_be_fetched_is_replaced_and_stays_on_the_server(archive, server, save):
    save(server("one"), 1)
    (first,) = archive.stored
    archive.is_readable = False
    other = server("other")
    save(other, 2)
    assert voxels_in_history(other, archive.uid) == [2]
    assert first in archive.stored
    assert len(archive.stored) == 2
    assert voxels_in(other.label_file(archive.uid, "final")) == 2


def test_a_label_waits_for_the_list_that_is_under_way(archive, server, save):
    other = server("other")
    with pytest.raises(NotFound):
        other.label_file(archive.uid, "final")
    save(server("one"), 1)
    archive.may_answer.clear()
    archive.is_asked.clear()
    listing = threading.Thread(target=other.list_images)
    listing.start()
    assert archive.is_asked.wait(30)
    found = []
    asking = threading.Thread(target=lambda: found.append(voxels_in(other.label_file(archive.uid, "final"))))
    asking.start()
    asking.join(0.2)
    assert asking.is_alive(), "It answered from the list of before."
    archive.may_answer.set()
    asking.join(30)
    listing.join(30)
    assert found == [1]


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


def test_a_save_counts_although_the_label_before_came_from_a_clock_that_is_ahead(archive, server, save):
    save(server("one"), 1)
    (first,) = archive.stored
    archive.change(first, ContentDate="20991231", ContentTime="235959", Manufacturer="somebody else")
    other = server("other")
    save(other, 2)
    wait_for_lists()
    assert len(archive.stored) == 2, "What another program made is never removed."
    assert voxels_in(other.label_file(archive.uid, "final")) == 2
    assert voxels_in(server("third").label_file(archive.uid, "final")) == 2


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


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
@pytest.mark.parametrize(("date", "time"), [("00010101", "000000"), ("", "213000"), ("20991399", ""), ("99991231", "")])
def test_a_save_counts_whatever_the_label_before_has_for_a_date(archive, server, save, date, time):
    save(server("one"), 1)
    (first,) = archive.stored
    archive.change(first, ContentDate=date, ContentTime=time, Manufacturer="somebody else")
    other = server("other")
    assert voxels_in(other.label_file(archive.uid, "final")) == 1
    save(other, 2)
    assert voxels_in(server("third").label_file(archive.uid, "final")) == 2


def test_of_two_saves_based_on_one_version_the_second_is_refused_and_on_no_server(archive, server, save):
    one = server("one")
    save(one, 1)
    storing = threading.Event()
    store = archive.store

    def slowly(content):
        storing.set()
        threading.Event().wait(0.3)
        store(content)

    archive.store = slowly
    first = threading.Thread(target=lambda: save(one, 2, based_on=1))
    first.start()
    assert storing.wait(30)
    with pytest.raises(Superseded):
        save(one, 3, based_on=1)
    first.join(30)
    assert len(archive.stored) == 1
    assert voxels_in_history(one, archive.uid) == [1, 2]


def test_a_label_that_was_removed_on_the_server_is_none_any_more(archive, server, save):
    one, other = server("one"), server("other")
    save(one, 1)
    assert voxels_in(other.label_file(archive.uid, "final")) == 1
    wait_for_lists()
    one.remove_label(archive.uid, "final")
    assert archive.stored == {}
    with pytest.raises(NotFound):
        other.label_file(archive.uid, "final")
    with pytest.raises(NotFound):
        other.remove_label(archive.uid, "final")
    assert voxels_in_history(other, archive.uid) == voxels_in_history(one, archive.uid) == [1]
    assert other.status()["completed"] == 0


def test_a_label_that_the_server_does_not_list_yet_stays(archive, server, save):
    one = server("one")
    listed = archive.segmentations
    archive.segmentations = lambda study_uids: ListedSegmentations(frozenset(), ())
    save(one, 1)
    wait_for_lists()
    assert voxels_in(one.label_file(archive.uid, "final")) == 1
    archive.segmentations = listed
    assert one.status()["completed"] == 1


def test_a_label_of_another_server_is_a_version_that_saves_are_based_on(archive, server, save):
    one, other = server("one"), server("other")
    save(one, 1)
    with pytest.raises(Superseded):
        save(other, 2, based_on=0)
    assert other.get_label_info(archive.uid, "final")["version"] == 1
    assert save(other, 2, based_on=1).number == 2
    wait_for_lists()
    assert one.get_label_info(archive.uid, "final")["version"] == 2
    (_, fetched) = one.history.versions(archive.uid, "final")
    (stored,) = archive.segmentations(set()).described
    made = instant_of(stored.made_at)
    assert made is not None
    assert abs(fetched.saved - made.timestamp()) < 0.001


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


def test_a_segmentation_that_is_damaged_is_replaced(archive, server, save):
    save(server("one"), 1)
    (first,) = archive.stored
    segments = dcmread(BytesIO(archive.stored[first])).SegmentSequence
    del segments[0].SegmentNumber
    archive.change(first, SegmentSequence=segments)
    other = server("other")
    save(other, 2)
    assert len(archive.stored) == 2
    assert voxels_in(other.label_file(archive.uid, "final")) == 2


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


def test_who_looks_elsewhere_knows_the_version_that_a_save_is_based_on(archive, server, save):
    """As pre-annotation does before it draws."""
    save(server("one"), 1)
    other = server("other")
    assert other.version_of(archive.uid, "final") == 0
    other.look_elsewhere(archive.uid, "final")
    version = other.version_of(archive.uid, "final")
    assert version == 1
    assert save(other, 2, based_on=version).number == 2


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


def test_a_series_that_is_fetched_again_is_the_same_image(archive, server, save):
    one, other = server("one"), server("other")
    etag = one.image_etag(archive.uid)
    shutil.rmtree(one.image_file(archive.uid))  # to make room
    assert save(one, 1, image_etag=etag).number == 1
    assert other.image_etag(archive.uid) == etag
    images = archive.images()
    archive.images = lambda: [replace(images[0], n_instances=len(archive.files) + 1)]
    other.refresh()
    with pytest.raises(Superseded, match="was replaced since it was opened"):
        other.check_etag(archive.uid, etag)
