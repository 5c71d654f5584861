import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.serving import label_history, studies_index
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.volume import atomic_file
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import read_mask, write_mask
from tests.unit.serving.conftest import SHAPE, values


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
