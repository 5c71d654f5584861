import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import InvalidRequest, LabelMismatch, NotFound, Superseded
from deepgrow3d_app.serving import label_history, studies_index
from deepgrow3d_app.serving.click_log import Answered, ClickLog
from deepgrow3d_app.serving.click_memory import Subject
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.file_version import file_version
from deepgrow3d_app.volume import atomic_file
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import read_mask, write_mask
from tests.unit.serving.conftest import SHAPE


@pytest.fixture
def log():
    return ClickLog(None)


@pytest.fixture
def datastore(studies, log):
    return StudiesDatastore(studies, VolumeCache(1 << 20), log, auto_reload=False, model_digest=lambda: "net")


@pytest.fixture
def save(datastore, tmp_path):
    """``save(value, client_id=..)``: a label all of whose voxels are ``value``."""

    def save(value, **info):
        write_mask(np.full(SHAPE, value, np.uint8), np.eye(4), tmp_path / "label.nii.gz")
        return datastore.save_label("ct", str(tmp_path / "label.nii.gz"), "final", info)

    return save


def values(datastore):
    """What each version is made of."""
    versions = datastore.history.versions("ct", "final")
    files = [datastore.history.file("ct", "final", version.number) for version in versions]
    return [int(read_mask(file)[0][0, 0, 0]) for file in files]


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


def test_the_clicks_that_made_it_are_kept(datastore, save, log, studies):
    image = studies / "ct.nii.gz"
    for client in ("anna", "bert"):
        subject = Subject(str(image), file_version(image), (), "liver", f"/{client}")
        first = frozenset({Click((1, 2, 3))})
        log.add(subject, Answered(first, None))
        log.add(subject, Answered(first | {Click((3, 2, len(client)), False)}, first))
    save(1, client_id="anna", label_info=[{"name": "liver", "idx": 1}])
    (version,) = datastore.history.versions("ct", "final")
    assert {name: (clicks.foreground, clicks.background) for name, clicks in version.clicks.items()} == {
        "liver": ([(1, 2, 3)], [(3, 2, 4)])
    }


def test_whoever_signed_in_saves_the_clicks_of_nobody_else(datastore, save, log, studies):
    """Viewers may call themselves alike."""
    image = studies / "ct.nii.gz"
    for name, click in (("anna", Click((1, 2, 3))), ("bert", Click((3, 2, 1)))):
        subject = Subject(str(image), file_version(image), (), "liver", "/3D Slicer", name)
        log.add(subject, Answered(frozenset({click}), None))
    for name in ("anna", "bert", "carl"):
        save(1, client_id="3D Slicer", saved_by=name, label_info=[{"name": "liver", "idx": 1}])
    versions = datastore.history.versions("ct", "final")
    assert [(version.saved_by, clicks_of(version)) for version in versions] == [
        ("anna", {"liver": ([(1, 2, 3)], [])}),
        ("bert", {"liver": ([(3, 2, 1)], [])}),
        ("carl", {}),
    ]


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


class Killed(BaseException):
    """Nothing in the program sees it coming."""


@pytest.mark.parametrize("survives", range(2))
def test_killed_while_a_version_is_written_the_label_is_the_one_before(datastore, save, monkeypatch, survives):
    save(1)
    left = [survives]

    def replace_file(path, content):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        atomic_file.replace_file(path, content)

    monkeypatch.setattr(label_history, "replace_file", replace_file)
    with pytest.raises(Killed):
        save(2)
    monkeypatch.setattr(label_history, "replace_file", atomic_file.replace_file)
    assert int(read_mask(datastore.label_file("ct", "final"))[0][0, 0, 0]) == 1
    assert datastore.get_label_info("ct", "final")["version"] == 1
    assert values(datastore) == [1]
    save(3)
    assert values(datastore) == [1, 3]


def test_killed_between_the_label_and_the_index_the_next_server_finishes_the_save(studies, save, monkeypatch, tmp_path):
    save(1, client_id="anna")
    replace = os.replace

    def killed_before_the_index(source, target):
        if Path(target).name == "datastore_v2.json":
            os._exit(9)
        replace(source, target)

    label = tmp_path / "second.nii.gz"
    write_mask(np.full(SHAPE, 2, np.uint8), np.eye(4), label)
    info = {"client_id": "bert", "label_info": [{"name": "liver", "idx": 2}]}
    process = os.fork()
    if process == 0:
        try:
            monkeypatch.setattr(os, "replace", killed_before_the_index)
            killed = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
            killed.save_label("ct", str(label), "final", info)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    second = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
    assert int(read_mask(second.label_file("ct", "final"))[0][0, 0, 0]) == 2
    assert second.get_label_info("ct", "final")["version"] == 1
    second.finish_saves()
    info = second.get_label_info("ct", "final")
    assert (info["version"], info["client_id"]) == (2, "bert")
    assert info["label_info"] == [{"name": "liver", "idx": 2}]
    before = second.json()
    second.finish_saves()
    assert second.json() == before


def test_two_structures_of_one_name_are_both_named(datastore, save):
    for value in (1, 2):
        save(value, label_info=[{"name": "cyst", "idx": 1}, {"name": "cyst", "idx": 2}])
    assert values(datastore) == [1, 2]


def no_room_for(monkeypatch, ending):
    """Files whose names end so cannot be written; those beside them are called otherwise until they are moved."""
    written = atomic_file.written_beside

    @contextlib.contextmanager
    def written_beside(path, content):
        if path.name.endswith(ending):
            raise OSError(28, "No space left on device")
        with written(path, content) as partial:
            yield partial

    monkeypatch.setattr(studies_index, "written_beside", written_beside)


@pytest.mark.parametrize("ending", ["datastore_v2.json", "ct.nii.gz"])
@pytest.mark.parametrize("found_as", [".nii.gz", ".nii"])
def test_without_room_the_label_of_before_stays_with_all_that_is_known_of_it(
    studies, datastore, save, monkeypatch, ending, found_as
):
    folder = studies / "labels" / "final"
    folder.mkdir(parents=True, exist_ok=True)
    write_mask(np.full(SHAPE, 1, np.uint8), np.eye(4), folder / f"ct{found_as}")
    datastore.refresh()
    with monkeypatch.context() as patched:
        no_room_for(patched, ending)
        with pytest.raises(OSError, match="No space"):
            save(2, client_id="bert", label_info=[{"name": "spleen", "idx": 2}])
    second = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
    second.finish_saves()
    for one in (datastore, second):
        assert int(read_mask(one.label_file("ct", "final"))[0][0, 0, 0]) == 1
        assert values(one) == [1]
        info = one.get_label_info("ct", "final")
        assert info.keys() <= {"name", "ts", "version"}
        assert info.get("version") in (None, 1)
    save(3)
    assert values(datastore) == [1, 3]


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


def test_without_room_images_and_labels_are_not_removed_and_not_replaced(
    studies, datastore, save, monkeypatch, tmp_path
):
    save(1)
    image = (studies / "ct.nii.gz").read_bytes()
    write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / "other.nii.gz")
    no_room_for(monkeypatch, "datastore_v2.json")
    for change in (
        lambda: datastore.remove_label("ct", "final"),
        lambda: datastore.remove_image("ct"),
        lambda: datastore.add_image("ct", str(tmp_path / "other.nii.gz"), {}),
    ):
        with pytest.raises(OSError, match="No space"):
            change()
        assert (studies / "ct.nii.gz").read_bytes() == image
        assert int(read_mask(datastore.label_file("ct", "final"))[0][0, 0, 0]) == 1
        assert values(datastore) == [1]


def test_a_removal_that_is_cut_off_leaves_no_label_for_another_image(studies, datastore, save, monkeypatch, tmp_path):
    save(1)
    unlink = Path.unlink
    gone: list[Path] = []

    def killed_after_the_first(path, missing_ok=False):
        if gone:
            raise Killed
        gone.append(path)
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed_after_the_first)
        with contextlib.suppress(Killed):
            datastore.remove_image("ct")
    second = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
    second.finish_saves()
    if "ct" not in second.list_images():
        write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), tmp_path / "another.nii.gz")
        second.add_image("ct", str(tmp_path / "another.nii.gz"), {})
        second.refresh()
        assert second.get_label_tags_of("ct") == []
    else:
        assert (studies / "ct.nii.gz").is_file()


def test_an_image_may_have_any_name_that_files_can_have(studies, datastore, tmp_path):
    write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), studies / "a\\b.nii.gz")
    datastore.refresh()
    write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / "label.nii.gz")
    assert datastore.save_version("a\\b", str(tmp_path / "label.nii.gz"), "final", {}).number == 1


def clicks_of(version):
    return {name: (clicks.foreground, clicks.background) for name, clicks in version.clicks.items()}


@pytest.fixture
def answered_click(log, studies):
    """What anna was answered last is a click at (1, 2, 3), in the liver."""
    image = studies / "ct.nii.gz"
    log.add(
        Subject(str(image), file_version(image), (), "liver", "/anna"), Answered(frozenset({Click((1, 2, 3))}), None)
    )


def test_the_clicks_that_a_viewer_sends_with_the_label_are_kept(datastore, save, answered_click):
    liver = {"foreground": [[1, 2, 3], [5, 6, 7]], "background": [[0, 0, 0]]}
    names = [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]
    sent = {"liver": liver, "spleen": {"foreground": [], "background": []}}
    save(1, client_id="anna", label_info=names, click_sets=sent)
    save(1, client_id="anna", label_info=names, click_sets={})
    first, second = datastore.history.versions("ct", "final")
    assert clicks_of(first) == {"liver": ([(1, 2, 3), (5, 6, 7)], [(0, 0, 0)])}
    assert clicks_of(second) == {}
    assert "click_sets" not in first.info
    assert "click_sets" not in datastore.get_label_info("ct", "final")


@pytest.mark.parametrize(
    "sent",
    [
        "liver",
        {"liver": [[1, 2, 3]]},
        {"liver": {"foreground": [[1, 2, 3]]}},
        {"liver": {"foreground": [[1, 2]], "background": []}},
        {"liver": {"foreground": [[1, 2, 3.0]], "background": []}},
        {"liver": {"foreground": [["1", 2, 3]], "background": []}},
        {"liver": {"foreground": [[True, 2, 3]], "background": []}},
        {"liver": {"foreground": [[6, 2, 3]], "background": []}},
        {"liver": {"foreground": [], "background": [[0, -1, 0]]}},
        {"liver": {"foreground": [[1, 2, 3]] * 1001, "background": []}},
        {"liver": {"foreground": [[1, 2, 3]] * 501, "background": [[1, 2, 3]] * 500}},
        {"spleen": {"foreground": [[1, 2, 3]], "background": []}},
    ],
)
def test_malformed_clicks_are_left_out_of_the_history(datastore, save, answered_click, sent):
    save(1, client_id="anna", label_info=[{"name": "liver", "idx": 1}], click_sets=sent)
    (version,) = datastore.history.versions("ct", "final")
    assert clicks_of(version) == {"liver": ([(1, 2, 3)], [])}
    assert "click_sets" not in datastore.get_label_info("ct", "final")


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
