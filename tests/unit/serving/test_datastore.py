import json
import shutil
import threading

import nibabel as nib
import numpy as np
import pytest

from deepgrow3d_app.errors import InvalidRequest, LabelMismatch, NotAllowed, NotFound, UnreadableVolume
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.volume import atomic_file
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import read_mask, write_mask
from tests.unit.serving.conftest import SHAPE


@pytest.fixture
def datastore(studies):
    return StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)


@pytest.fixture
def upload(tmp_path):
    """Writes a volume or label outside the studies, as an upload lies before it is taken."""

    def write(values, name, affine=None):
        path = tmp_path / name
        write_mask(values, np.eye(4) if affine is None else affine, path)
        return str(path)

    return write


def label(value):
    return np.full(SHAPE, value, np.uint8)


def stored_label(studies, tag="final"):
    mask, _ = read_mask(studies / "labels" / tag / "ct.nii.gz")
    return set(np.unique(mask))


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_label_is_stored_on_the_grid_of_its_image(studies, datastore, upload):
    assert datastore.save_label("ct", upload(label(3), "l.nrrd"), "final", {"by": "anna"}) == "ct"
    assert stored_label(studies) == {3}
    assert datastore.get_label_info("ct", "final")["by"] == "anna"
    assert datastore.label_file("ct", "final") == studies / "labels" / "final" / "ct.nii.gz"
    assert datastore.status() == {"total": 1, "completed": 1, "label_tags": {"final": 1}}


def test_another_process_finds_what_was_saved(studies, datastore, upload):
    datastore.save_label("ct", upload(label(3), "l.nii.gz"), "review", {"by": "anna"})
    other = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
    assert other.get_label_info("ct", "review")["by"] == "anna"


def test_two_servers_do_not_lose_each_others_entries(studies, datastore):
    other = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
    with datastore.editing() as index:
        thread = threading.Thread(target=other.update_image_info, args=("ct", {"other": 1}))
        thread.start()
        thread.join(0.3)
        index.objects["ct"].image.info["ours"] = 1
    thread.join(10)
    for server in (other, datastore):
        server.update_image_info("ct", {})
        assert {"other", "ours"} <= set(server.get_image_info("ct"))


def test_an_edit_that_fails_lets_other_servers_go_on(studies, datastore):
    other = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
    with pytest.raises(KeyError), datastore.editing() as index:
        index.objects.pop("mr")
    other.update_image_info("ct", {"other": 1})
    datastore.refresh()
    assert datastore.get_image_info("ct")["other"] == 1


def test_a_label_of_another_format_leaves_one_label(studies, datastore, upload):
    write_mask(label(1), np.eye(4), studies / "labels" / "final" / "ct.nrrd")
    datastore.refresh()
    assert datastore.label_file("ct", "final").name == "ct.nrrd"
    datastore.save_label("ct", upload(label(2), "l.nrrd"), "final", {})
    assert [path.name for path in (studies / "labels" / "final").iterdir()] == ["ct.nii.gz"]
    assert stored_label(studies) == {2}


@pytest.mark.parametrize(
    ("image", "tag", "content", "fault"),
    [
        ("ct", "final", b"garbage", UnreadableVolume),
        ("ct", "final", b"", UnreadableVolume),
        ("ct", "../final", None, InvalidRequest),
        ("ct", "a/b", None, InvalidRequest),
        ("mr", "final", None, NotFound),
        ("../studies/ct", "final", None, NotFound),
    ],
)
def test_a_label_that_is_refused_changes_nothing(studies, datastore, upload, image, tag, content, fault):
    datastore.save_label("ct", upload(label(3), "l.nii.gz"), "final", {})
    before = everything(studies.parent)
    path = upload(label(4), "m.nii.gz")
    if content is not None:
        (studies.parent / "m.nii.gz").write_bytes(content)
    with pytest.raises(fault):
        datastore.save_label(image, path, tag, {})
    (studies.parent / "m.nii.gz").unlink()
    assert everything(studies.parent) == before


def test_a_label_of_another_shape_is_refused(studies, datastore, upload):
    datastore.save_label("ct", upload(label(3), "l.nii.gz"), "final", {})
    with pytest.raises(LabelMismatch, match=r"5 x 7 x 8 voxels, its image 'ct\.nii\.gz' has 6 x 7 x 8"):
        datastore.save_label("ct", upload(label(4)[1:], "m.nii.gz"), "final", {})
    assert stored_label(studies) == {3}


def test_an_index_that_cannot_be_written_leaves_the_datastore_as_it_was(studies, datastore, upload, monkeypatch):
    def full_disk(path, content):
        if path.name == "datastore_v2.json":
            raise OSError(28, "No space left on device")
        return atomic_file.written_beside(path, content)

    monkeypatch.setattr("deepgrow3d_app.serving.studies_index.written_beside", full_disk)
    with pytest.raises(OSError, match="No space"):
        datastore.save_label("ct", upload(label(3), "l.nii.gz"), "final", {})
    assert datastore.status()["completed"] == 0


def test_an_image_is_decoded_before_it_enters(studies, datastore, upload):
    before = everything(studies)
    path = upload(label(0), "new.nii.gz")
    (studies.parent / "new.nii.gz").write_bytes(b"garbage")
    with pytest.raises(UnreadableVolume, match=r"new\.nii\.gz"):
        datastore.add_image("new", path, {})
    assert everything(studies) == before


@pytest.mark.parametrize("image_id", ["../evil", "/tmp/evil", "a/b", ".evil", "x" * 200])
def test_an_image_id_is_a_name(studies, datastore, upload, image_id):
    before = everything(studies)
    with pytest.raises(InvalidRequest, match="cannot be an image id"):
        datastore.add_image(image_id, upload(label(0), "new.nii.gz"), {})
    assert everything(studies) == before


def test_an_image_without_an_id_is_called_after_its_file(studies, datastore, upload):
    assert datastore.add_image("", upload(label(0), "new.nrrd"), {}) == "new"
    assert datastore.image_file("new") == studies / "new.nrrd"


def test_an_image_that_is_sent_again_keeps_its_labels(studies, datastore, upload):
    datastore.save_label("ct", upload(label(3), "l.nii.gz"), "final", {})
    datastore.add_image("ct", upload(label(9), "again.nrrd"), {})
    assert datastore.image_file("ct").name == "ct.nrrd"
    assert not (studies / "ct.nii.gz").exists()
    assert datastore.status() == {"total": 1, "completed": 1, "label_tags": {"final": 1}}


def test_an_image_does_not_take_the_place_of_one_with_labels_elsewhere(studies, datastore, upload):
    datastore.save_label("ct", upload(label(3), "l.nii.gz"), "final", {})
    before = everything(studies)
    with pytest.raises(LabelMismatch, match="has a label 'final' that does not lie on the new image"):
        datastore.add_image("ct", upload(label(9), "again.nii.gz", np.diag([2.0, 1.0, 1.0, 1.0])), {})
    assert everything(studies) == before


def test_removing_an_image_removes_its_labels_and_nothing_else(studies, datastore, upload):
    datastore.add_image("other", upload(label(0), "new.nii.gz"), {})
    datastore.save_label("ct", upload(label(3), "l.nii.gz"), "final", {})
    datastore.save_label("other", upload(label(3), "l.nii.gz"), "final", {})
    datastore.remove_image("ct")
    kept = ["0001.nii.gz", "other.nii.gz", "other.nii.gz"]  # the history of the other image's label, too
    assert sorted(path.name for path in studies.rglob("*.nii.gz")) == kept
    with pytest.raises(NotFound):
        datastore.remove_image("ct")


@pytest.mark.parametrize("name", ["ct", "ct.nii.gz", "./ct", "../studies/ct"])
def test_only_ids_are_ids(studies, datastore, name):
    if name == "ct":
        assert datastore.image_file(name) == studies / "ct.nii.gz"
        return
    with pytest.raises(NotFound, match="There is no image"):
        datastore.image_file(name)


def test_hidden_files_folders_and_segmentations_are_no_images(studies):
    shutil.copy(studies / "ct.nii.gz", studies / "._ct.nii.gz")
    write_mask(label(1), np.eye(4), studies / "ct.seg.nrrd")
    (studies / "folder.nii.gz").mkdir()
    assert StudiesDatastore(studies, VolumeCache(0), ClickLog(None), auto_reload=False).list_images() == ["ct"]


def test_a_damaged_index_is_refused_by_name(studies):
    (studies / "datastore_v2.json").write_text("{")
    with pytest.raises(InvalidRequest, match=r"datastore_v2\.json', is damaged"):
        StudiesDatastore(studies, VolumeCache(0), ClickLog(None), auto_reload=False)


def test_the_index_stays_readable_for_monai_label(studies, datastore, upload):
    datastore.save_label("ct", upload(label(3), "l.nii.gz"), "final", {})
    index = json.loads((studies / "datastore_v2.json").read_text())
    assert index["objects"]["ct"]["image"]["ext"] == ".nii.gz"
    assert index["objects"]["ct"]["labels"]["final"]["info"]["name"] == "ct.nii.gz"


def test_what_an_image_is_to_annotators_cannot_be_set(studies, datastore, upload):
    forged = {"id": "other", "weight": 7, "path": "/etc", "name": "x", "ts": -1, "strategy": {"random": {"ts": 9}}}
    datastore.update_image_info("ct", {**forged, "note": "ok"})
    datastore.add_image("new", upload(label(0), "new.nii.gz"), {**forged, "note": "ok"})
    for image in ("ct", "new"):
        info = datastore.get_image_info(image)
        assert info["note"] == "ok"
        assert not {"id", "weight", "strategy"} & info.keys()
        assert (info["name"], info["ts"] > 0) == (f"{image}.nii.gz", True)
    assert datastore.hand_out("ct", "random", "anna")["strategy"]["random"]["client_id"] == "anna"


def test_whether_an_image_may_be_replaced_is_asked_when_it_would_be(studies, datastore, upload):
    def refuse():
        raise NotAllowed("Only an admin may do that.")

    datastore.add_image("new", upload(label(0), "new.nii.gz"), {}, refuse)
    shutil.copy(studies / "ct.nii.gz", studies / "copied.nii.gz")  # which the index does not know yet
    before = everything(studies)
    for image in ("new", "copied", "ct"):
        with pytest.raises(NotAllowed):
            datastore.add_image(image, upload(label(1), "other.nii.gz"), {}, refuse)
    assert everything(studies) == before


@pytest.mark.parametrize(("extension", "dtype"), [(".nii.gz", np.int16), (".nii", np.float32), (".nii.gz", np.uint8)])
def test_a_label_of_another_program_is_sent_as_bytes_on_request(studies, datastore, tmp_path, extension, dtype):
    folder = studies / "labels" / "final"
    folder.mkdir(parents=True, exist_ok=True)
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 5
    nib.Nifti1Image(values.astype(dtype), np.eye(4)).to_filename(folder / f"ct{extension}")
    datastore.refresh()
    sent = tmp_path / "sent.nii.gz"
    sent.write_bytes(datastore.label_on_image("ct", "final"))
    assert nib.Nifti1Image.from_filename(sent).get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read_mask(sent)[0], values)
    assert datastore.label_file("ct", "final").name == f"ct{extension}"


def test_a_label_on_another_grid_is_not_sent_as_one_of_its_image(studies, datastore):
    write_mask(label(1), np.diag([2.0, 1.0, 1.0, 1.0]), studies / "labels" / "final" / "ct.nii.gz")
    datastore.refresh()
    with pytest.raises(LabelMismatch):
        datastore.label_on_image("ct", "final")
    with pytest.raises(NotFound):
        datastore.label_on_image("ct", "review")
