import contextlib
import os
import shutil
import time

import numpy as np
import pytest

from deepgrow3d_app.errors import NotAllowed, NotFound
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import write_mask
from tests.unit.serving.conftest import SHAPE

NAMES = [{"name": "liver", "idx": 1}]
PATIENCE_S = 60


@pytest.fixture
def label(tmp_path):
    write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / "label.nii.gz")
    return str(tmp_path / "label.nii.gz")


def opened(studies, **options):
    return StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), **{"auto_reload": False, **options})


@pytest.fixture
def watching(studies):
    datastore = opened(studies, auto_reload=True)
    yield datastore
    datastore._observer.stop()
    datastore._observer.join()


def eventually(is_so):
    """Whether it is so at some time soon: another thread sees to it."""
    end = time.monotonic() + PATIENCE_S
    while not is_so() and time.monotonic() < end:
        time.sleep(0.02)
    return is_so()


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_cannot_be_read_again_is_not_written(studies):
    datastore = opened(studies)
    before = everything(studies)
    with pytest.raises(UnicodeEncodeError):
        datastore.hand_out("ct", "first", "\ud800")
    with pytest.raises(ValueError, match="not JSON compliant"):
        datastore.update_image_info("ct", {"weight": 1, "score": float("nan")})
    assert everything(studies) == before
    assert "strategy" not in datastore.get_image_info("ct")
    assert opened(studies).list_images() == ["ct"]


def test_a_file_whose_name_is_no_text_is_left_out(studies):
    name = os.fsdecode(b"caf\xe9.nii.gz")
    try:
        shutil.copy(studies / "ct.nii.gz", studies / name)
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    assert opened(studies).list_images() == ["ct"]
    assert opened(studies).list_images() == ["ct"]  # the index could be written and read


def test_a_folder_whose_name_is_no_text_or_that_is_hidden_is_no_tag(studies, label):
    labels = studies / "labels"
    try:
        (labels / os.fsdecode(b"caf\xe9")).mkdir(parents=True)
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    for name in (os.fsdecode(b"caf\xe9"), ".trash", "review"):
        (labels / name).mkdir(exist_ok=True)
        shutil.copy(label, labels / name / "ct.nii.gz")
    datastore = opened(studies)
    datastore.refresh()
    assert datastore.get_label_tags_of("ct") == ["review"]


def test_read_only_studies_are_shown_and_not_changed(studies, label):
    opened(studies).save_label("ct", label, "final", {"label_info": NAMES})
    shutil.copy(studies / "ct.nii.gz", studies / "new.nii.gz")
    before = everything(studies)
    datastore = opened(studies, read_only=True)
    assert sorted(datastore.list_images()) == ["ct", "new"]
    assert datastore.get_label_info("ct", "final")["label_info"] == NAMES
    for change in (
        lambda: datastore.save_label("ct", label, "final", {}),
        lambda: datastore.add_image("other", str(studies / "ct.nii.gz"), {}),
        lambda: datastore.remove_image("ct"),
        lambda: datastore.remove_label("ct", "final"),
        lambda: datastore.update_image_info("ct", {"note": 1}),
        lambda: datastore.update_label_info("ct", "final", {"note": 1}),
    ):
        with pytest.raises(NotAllowed, match="MONAI_LABEL_DATASTORE_READ_ONLY"):
            change()
    assert datastore.hand_out("ct", "first", "anna")["name"] == "ct.nii.gz"
    datastore.refresh()
    datastore.finish_saves()
    assert everything(studies) == before


def test_what_another_server_saves_is_seen(studies, watching, label):
    opened(studies).save_label("ct", label, "final", {"label_info": NAMES})
    assert eventually(lambda: watching.get_label_info("ct", "final").get("label_info") == NAMES)


def test_what_another_server_changed_is_seen_when_it_is_asked_for(studies, label):
    """Also where nothing watches the folder, or not at once, as on a network's share."""
    one, other = opened(studies), opened(studies)
    one.save_label("ct", label, "final", {"label_info": NAMES})
    assert other.label_file("ct", "final").is_file()
    assert other.get_label_info("ct", "final")["label_info"] == NAMES
    one.add_image("new", str(studies / "ct.nii.gz"), {})
    assert other.image_file("new").is_file()


def done_before(monkeypatch, datastore, change):
    """Do ``change`` right before ``datastore`` begins to change its index: what it looked up earlier is of before."""
    editing = datastore.editing

    @contextlib.contextmanager
    def after_the_change():
        monkeypatch.undo()
        change()
        with editing() as index:
            yield index

    monkeypatch.setattr(datastore, "editing", after_the_change)


def test_what_another_server_makes_of_a_label_or_an_image_meanwhile_is_removed(studies, label, monkeypatch, tmp_path):
    final = studies / "labels" / "final"
    final.mkdir(parents=True)
    write_mask(np.ones(SHAPE, np.uint8), np.eye(4), final / "ct.nrrd")
    one, other = opened(studies), opened(studies)
    done_before(monkeypatch, other, lambda: one.save_label("ct", label, "final", {"label_info": NAMES}))
    other.remove_label("ct", "final")
    assert list(final.iterdir()) == []
    assert other.get_label_tags_of("ct") == []

    write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / "other.nrrd")
    done_before(monkeypatch, other, lambda: one.add_image("ct", str(tmp_path / "other.nrrd"), {}))
    other.remove_image("ct")
    assert list(studies.glob("ct.*")) == []


def test_an_index_that_somebody_damages_is_told_once_and_written_anew(studies, caplog):
    datastore = opened(studies)
    (studies / "datastore_v2.json").write_text('{"name": "new-')
    for _ in range(3):
        assert datastore.image_file("ct").is_file()
    assert caplog.text.count("The index of the studies is damaged") == 1
    datastore.update_image_info("ct", {"note": 1})
    assert opened(studies).get_image_info("ct")["note"] == 1


def test_an_image_that_gets_its_name_in_one_step_is_seen(studies, watching):
    shutil.copy(studies / "ct.nii.gz", studies / ".new.nii.gz.x7")
    os.rename(studies / ".new.nii.gz.x7", studies / "new.nii.gz")
    assert eventually(lambda: "new" in watching.list_images())
    os.rename(studies / "new.nii.gz", studies / "newer.nii.gz")
    assert eventually(lambda: sorted(watching.list_images()) == ["ct", "newer"])


def test_a_label_whose_image_was_away_is_known_as_before(studies, label):
    datastore = opened(studies)
    datastore.save_label("ct", label, "final", {"label_info": NAMES})
    datastore.update_label_info("ct", "final", {"segmentationMeta": {"status": "approved"}})
    known = datastore.get_label_info("ct", "final")
    os.rename(studies / "ct.nii.gz", studies / "away")
    datastore.refresh()
    assert datastore.list_images() == []
    os.rename(studies / "away", studies / "ct.nii.gz")
    datastore.refresh()
    now = datastore.get_label_info("ct", "final")
    assert {**now, "ts": 0} == {**known, "ts": 0}
    assert now["version"] == 1
    assert now["segmentationMeta"] == {"status": "approved"}


def test_a_label_that_another_program_made_has_no_names(studies, label):
    datastore = opened(studies)
    datastore.save_label("ct", label, "final", {"label_info": NAMES})
    os.rename(studies / "ct.nii.gz", studies / "away")
    write_mask(np.full(SHAPE, 2, np.uint8), np.eye(4), studies / "labels" / "final" / "ct.nii.gz")
    datastore.refresh()
    os.rename(studies / "away", studies / "ct.nii.gz")
    datastore.refresh()
    assert "label_info" not in datastore.get_label_info("ct", "final")


def test_what_is_saved_while_a_save_is_finished_counts(studies, label, tmp_path, monkeypatch):
    """Another server may save between the look at a label's file and the change of the index."""
    datastore, other = opened(studies), opened(studies)
    datastore.save_label("ct", label, "final", {"label_info": NAMES})
    with datastore.editing() as index:
        del index.objects["ct"].labels["final"].info["version"]
    write_mask(np.full(SHAPE, 2, np.uint8), np.eye(4), tmp_path / "newer.nii.gz")
    editing = datastore.editing

    @contextlib.contextmanager
    def after_the_other_one():
        monkeypatch.undo()
        other.save_label("ct", str(tmp_path / "newer.nii.gz"), "final", {"label_info": [{"name": "cyst", "idx": 2}]})
        with editing() as index:
            yield index

    monkeypatch.setattr(datastore, "editing", after_the_other_one)
    datastore.finish_saves()
    info = opened(studies).get_label_info("ct", "final")
    assert info["version"] == datastore.history.versions("ct", "final")[-1].number
    assert info["label_info"] == [{"name": "cyst", "idx": 2}]


def test_whether_a_label_may_be_changed_is_asked_of_what_is_known_now(studies, label):
    one, other = opened(studies), opened(studies)
    one.save_label("ct", label, "final", {"label_info": NAMES})
    one.update_label_info("ct", "final", {"segmentationMeta": {"status": "approved"}})
    assert other.get_label_info("ct", "final") == {}  # it has not looked since

    def only_unreviewed(known):
        if "segmentationMeta" in known:
            raise NotAllowed("It was reviewed.")

    with pytest.raises(NotAllowed, match="reviewed"):
        other.update_label_info("ct", "final", {"label_info": [{"name": "tumour", "idx": 1}]}, only_unreviewed)
    assert one.get_label_info("ct", "final")["label_info"] == NAMES
    with pytest.raises(NotFound):
        one.update_label_info("ct", "other", {}, only_unreviewed)
