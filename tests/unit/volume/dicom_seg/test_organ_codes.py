import json
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes

from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.dicom_seg.organ_codes import ANATOMY, GENERAL, SIDES, TISSUE, TYPES, structure_code

KNOWN = [getattr(codes.SCT, name) for name in codes.SCT.dir()]
CT_TRUNK = Path("sample-data/reference/ct-trunk/structures.json")


@pytest.mark.parametrize("code", [*TYPES.values(), *SIDES.values(), ANATOMY, TISSUE], ids=lambda code: code.meaning)
def test_codes_are_those_of_the_standard(code):
    assert (code.value, code.meaning) in {(known.value, known.meaning) for known in KNOWN}


def test_the_models_13_organs_are_known():
    labels = ModelSpec().labels
    assert len(labels) == 13
    assert all(structure_code(label).category == ANATOMY for label in labels)
    assert len({structure_code(label) for label in labels}) == 13


def test_the_same_organs_by_totalsegmentators_names():
    names = json.loads(CT_TRUNK.read_text())["structures"]
    organs = {structure_code(label) for label in ModelSpec().labels}
    # all but the oesophagus, which that CT does not reach
    assert len(organs & {structure_code(name) for name in names}) == 12


@pytest.mark.parametrize("name", ["left kidney", "kidney_left", "Kidney (L)", "LEFT-KIDNEY", "kidney left"])
def test_spellings(name):
    code = structure_code(name)
    assert (code.type.meaning, code.side) == ("Kidney", SIDES["left"])


@pytest.mark.parametrize("name", ["my lesion", "", "region 1", "left", "left right kidney", "肝臓"])
def test_what_is_not_known(name):
    assert structure_code(name) == GENERAL
