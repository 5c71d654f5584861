import os

import numpy as np
import pytest

from deepgrow3d_app.errors import InvalidRequest, LabelMismatch, NotFound, Superseded
from deepgrow3d_app.volume.files import write_mask
from tests.unit.serving.conftest import SHAPE, values


def test_every_save_is_a_version_and_says_who_made_it(datastore, save):
    assert datastore.history.versions("ct", "final") == []
    save(1, client_id="anna")
    save(2, client_id="bert", label_info=[{"name": "liver", "idx": 2}])
    first, second = datastore.history.versions("ct", "final")
    assert values(datastore) == [1, 2]
    assert (first.number, first.client_id, second.client_id, second.model_sha256) == (1, "anna", "bert", "net")
    assert second.info["label_info"] == [{"name": "liver", "idx": 2}]
    assert first.saved <= second.saved
    assert datastore.get_label_info("ct", "final")["version"] == 2
    with pytest.raises(NotFound, match=r"has no version 3\. Known: 1, 2"):
        datastore.history.file("ct", "final", 3)


def test_a_label_of_another_program_is_kept_before_it_is_replaced(datastore, save, studies):
    (studies / "labels" / "final").mkdir(parents=True, exist_ok=True)
    write_mask(np.full(SHAPE, 7, np.uint8), np.eye(4), studies / "labels" / "final" / "ct.nii.gz")
    datastore.refresh()
    save(1)
    assert values(datastore) == [7, 1]


def test_whoever_started_from_an_older_version_is_told_and_nothing_is_written(datastore, save):
    save(1, client_id="anna", based_on=0)
    save(2, client_id="bert", based_on=1)
    with pytest.raises(Superseded, match="at version 2, saved by 'bert', yours is based on 1"):
        save(3, client_id="anna", based_on=1)
    assert values(datastore) == [1, 2]
    save(3, client_id="anna", based_on=2)
    assert values(datastore) == [1, 2, 3]
    save(4)  # a script that does not say who it is
    with pytest.raises(Superseded, match="at version 4, saved by somebody else, yours is based on 3"):
        save(5, client_id="anna", based_on=3)
    assert values(datastore) == [1, 2, 3, 4]
    assert "based_on" not in datastore.get_label_info("ct", "final")


@pytest.mark.parametrize("version", ["1", True, 1.5, -1, None, [1], "1" * 1000])
def test_what_is_no_version_is_told_so(datastore, save, version):
    save(1)
    with pytest.raises(InvalidRequest, match="Send the number of the version") as refused:
        save(2, based_on=version)
    assert len(str(refused.value)) < 300
    assert values(datastore) == [1]


def test_a_label_of_an_image_that_was_replaced_is_refused(datastore, save, tmp_path):
    etag = datastore.image_etag("ct")
    save(1, image_etag=etag)
    os.utime(datastore.image_file("ct"))  # the same image, copied there again
    save(2, image_etag=etag)
    write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / "other.nii.gz")
    datastore.add_image("ct", str(tmp_path / "other.nii.gz"), {})
    with pytest.raises(Superseded, match="'ct' was replaced since it was opened"):
        save(3, image_etag=etag)
    assert values(datastore) == [1, 2]
    save(3, image_etag=datastore.image_etag("ct"))
    assert "image_etag" not in datastore.get_label_info("ct", "final")


def test_names_have_values_in_what_is_known_of_a_label(datastore, save):
    named = [{"name": "liver", "idx": 1}]
    save(1, label_info=[{"name": "liver"}])
    assert datastore.get_label_info("ct", "final")["label_info"] == named
    assert datastore.history.versions("ct", "final")[0].info["label_info"] == named
    datastore.update_label_info("ct", "final", {"label_info": [{"name": "spleen"}]})
    assert datastore.get_label_info("ct", "final")["label_info"] == [{"name": "spleen", "idx": 1}]


def test_values_without_a_name_are_refused_where_others_have_names(datastore, save):
    with pytest.raises(LabelMismatch, match="voxels of the value 3, and label_info names only 1, 2"):
        save(3, label_info=[{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}])
    assert values(datastore) == []
    save(3)  # nothing is named, so nothing is wrong


def test_what_a_reviewer_says_stays_with_the_version_that_he_saw(datastore, save):
    save(1)
    review = {"segmentationMeta": {"status": "flagged", "comment": "leaks", "level": "easy"}}
    datastore.update_label_info("ct", "final", review)
    assert datastore.get_label_info("ct", "final")["segmentationMeta"]["status"] == "flagged"
    save(2)
    assert "segmentationMeta" not in datastore.get_label_info("ct", "final")
    first, second = datastore.history.versions("ct", "final")
    assert first.info["segmentationMeta"] == review["segmentationMeta"]
    assert "segmentationMeta" not in second.info


def test_the_number_of_a_version_is_not_for_clients_to_choose(datastore, save):
    save(1)
    datastore.update_label_info("ct", "final", {"version": 7, "by": "anna"})
    assert datastore.get_label_info("ct", "final")["version"] == 1
    assert datastore.get_label_info("ct", "final")["by"] == "anna"


def test_the_history_goes_with_the_image_and_stays_without_the_label(datastore, save):
    save(1)
    datastore.remove_label("ct", "final")
    assert values(datastore) == [1]
    save(2)
    assert values(datastore) == [1, 2]
    datastore.remove_image("ct")
    assert not list(datastore.history.folder.rglob("*.*"))


def test_two_structures_of_one_name_are_both_named(datastore, save):
    for value in (1, 2):
        save(value, label_info=[{"name": "cyst", "idx": 1}, {"name": "cyst", "idx": 2}])
    assert values(datastore) == [1, 2]


@pytest.mark.parametrize("extension", [".nii", ".nrrd", ".seg.nrrd"])
def test_a_label_of_another_format_can_be_read_in_the_history(studies, datastore, save, extension):
    folder = studies / "labels" / "final"
    folder.mkdir(parents=True, exist_ok=True)
    write_mask(np.full(SHAPE, 1, np.uint8), np.eye(4), folder / f"ct{extension}")
    datastore.refresh()
    save(2)
    assert values(datastore) == [1, 2]
    assert [file.name for file in folder.iterdir()] == ["ct.nii.gz"]


@pytest.mark.parametrize("path", ["..", "../other", "/etc", "a/b", ""])
def test_a_path_is_no_tag(datastore, path):
    for ask in (datastore.history.versions, lambda image, tag: datastore.history.file(image, tag, 1)):
        with pytest.raises(InvalidRequest, match="it is a path"):
            ask("ct", path)
        with pytest.raises(InvalidRequest, match="it is a path"):
            ask(path, "final")


def test_an_image_may_have_any_name_that_files_can_have(studies, datastore, tmp_path):
    write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), studies / "a\\b.nii.gz")
    datastore.refresh()
    write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / "label.nii.gz")
    assert datastore.save_version("a\\b", str(tmp_path / "label.nii.gz"), "final", {}).number == 1


def test_a_version_has_as_many_digits_as_it_takes(datastore, save):
    for value in (1, 2):
        save(value)
    folder = datastore.history.folder / "final" / "ct"
    for ending in (".json", ".nii.gz"):  # as if there had been 9999 of them
        (folder / f"0002{ending}").rename(folder / f"9999{ending}")
    record = folder / "9999.json"
    record.write_text(record.read_text().replace('"number": 2', '"number": 9999'))
    for value in (3, 4, 5):
        save(value)
    assert [version.number for version in datastore.history.versions("ct", "final")] == [1, 9999, 10000, 10001, 10002]
    assert values(datastore) == [1, 2, 3, 4, 5]
    assert [newest.number for _, _, newest in datastore.history.newest()] == [10002]
