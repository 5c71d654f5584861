import json

import numpy as np
import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.labelled_cases import labelled_cases, write_cases
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import write_mask

SHAPE = (6, 7, 8)


@pytest.fixture
def datastore(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in "abcd":
        write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), studies / f"{name}.nii.gz")
    datastore = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
    write_mask(np.ones(SHAPE, np.uint8), np.eye(4), tmp_path / "label.nii.gz")
    for name in "abc":
        info = {"label_info": [{"name": f"organ {name}", "idx": 1}]}
        datastore.save_label(name, str(tmp_path / "label.nii.gz"), "final", info)
    return datastore


def test_every_final_label_is_a_case_with_its_own_names(datastore, tmp_path):
    datastore.update_image_info("a", {"PatientID": "p"})
    cases = labelled_cases(datastore)
    assert [(case.name, case.patient, dict(case.names)) for case in cases] == [
        ("a", "p", {"organ a": 1}),
        ("b", "b", {"organ b": 1}),
        ("c", "c", {"organ c": 1}),
    ]
    write_cases(cases, tmp_path / "cases.json")
    assert find_cases(tmp_path / "cases.json") == cases
    assert json.loads((tmp_path / "cases.json").read_text())["cases"][0]["patient"] == "p"


def test_what_a_reviewer_flagged_or_what_is_gone_is_left_out(datastore, caplog):
    datastore.update_label_info("a", "final", {"segmentationMeta": {"status": "flagged"}})
    datastore.update_label_info("b", "final", {"segmentationMeta": {"status": "approved"}})
    datastore.label_file("c", "final").unlink()
    assert [case.name for case in labelled_cases(datastore)] == ["b"]
    assert "'c'" in caplog.text


def test_a_label_with_two_values_of_one_name_is_left_out(datastore, tmp_path, caplog):
    """A case has a value for each name: the other one would be learnt as background."""
    info = {"label_info": [{"name": "cyst", "idx": 1}, {"name": "cyst", "idx": 2}]}
    datastore.save_label("a", str(tmp_path / "label.nii.gz"), "final", info)
    assert [case.name for case in labelled_cases(datastore)] == ["b", "c"]
    assert "Not trained on: 'a'. Two of its values have one name" in caplog.text
