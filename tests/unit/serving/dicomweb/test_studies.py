"""Two servers before one archive: labels that one of them stored and the other replaces."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread

from deepgrow3d_app.errors import NotFound, Superseded
from deepgrow3d_app.serving.dicomweb.content_time import instant_of
from tests.unit.serving.dicomweb.conftest import voxels_in, voxels_in_history, wait_for_lists


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


def test_who_looks_elsewhere_knows_the_version_that_a_save_is_based_on(archive, server, save):
    """As pre-annotation does before it draws."""
    save(server("one"), 1)
    other = server("other")
    assert other.version_of(archive.uid, "final") == 0
    other.look_elsewhere(archive.uid, "final")
    version = other.version_of(archive.uid, "final")
    assert version == 1
    assert save(other, 2, based_on=version).number == 2


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
