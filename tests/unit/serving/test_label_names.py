from typing import Any

import numpy as np
import pytest

from deepgrow3d_app.errors import InvalidRequest, LabelMismatch
from deepgrow3d_app.serving.label_names import check_names, check_values, info_of, segments_of, with_values
from deepgrow3d_app.volume.dicom_seg.segment import Segment

LIVER = {"name": "liver", "idx": 1}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (LIVER, "Send a list"),
        ("liver", "Send a list"),
        (["liver"], "Entry 1 .* has no name"),
        ([{"idx": 1}], "Entry 1 .* has no name"),
        ([LIVER, {"name": " ", "idx": 2}], "Entry 2 .* has no name"),
        ([{"name": "liver", "idx": "1"}], "whole number from 1 to 255"),
        ([{"name": "liver", "idx": 1.5}], "whole number from 1 to 255"),
        ([{"name": "liver", "idx": True}], "whole number from 1 to 255"),
        ([{"name": "liver", "idx": 256}], "has the value '256'"),
        ([{"name": "liver", "idx": -1}], "has the value '-1'"),
        ([LIVER, {"name": "spleen", "idx": 1}], "Entry 2 .*'spleen', has the value 1, which 'liver' has too"),
        ([{"name": "spleen"}, LIVER], "which 'spleen' has too"),  # without a value, an entry has that of its place
    ],
)
def test_names_that_would_be_lost_are_refused(names, told):
    with pytest.raises(InvalidRequest, match=told):
        check_names({"label_info": names})


@pytest.mark.parametrize(
    ("names", "segments"),
    [
        (None, []),
        ([], []),
        ([LIVER, {"name": "cyst", "idx": 7, "color": [1, 2, 3]}], [Segment(1, "liver"), Segment(7, "cyst")]),
        ([{"name": "liver"}, {"name": "spleen"}], [Segment(1, "liver"), Segment(2, "spleen")]),
        ([{"name": "background", "idx": 0}, LIVER], [Segment(1, "liver")]),
        ([{"name": "cyst", "idx": 1}, {"name": "cyst", "idx": 2}], [Segment(1, "cyst"), Segment(2, "cyst")]),
    ],
)
def test_what_passes_is_read_as_it_was_meant(names, segments):
    check_names({"label_info": names})
    assert segments_of({"label_info": names}) == segments
    assert segments_of({"label_info": info_of(segments)}) == segments


def test_an_entry_without_a_value_is_given_that_of_its_place():
    sent = {"label_info": [{"name": "liver"}, {"name": "cyst", "idx": 7}], "model": "deepgrow3d"}
    named = [{"name": "liver", "idx": 1}, {"name": "cyst", "idx": 7}]
    assert with_values(sent) == {"label_info": named, "model": "deepgrow3d"}
    nothing: list[dict[str, Any]] = [{}, {"label_info": None}, {"label_info": []}]
    for info in nothing:
        assert with_values(info) == info


def test_what_is_there_already_is_read_as_well_as_it_can_be():
    assert segments_of({"label_info": [LIVER, {"name": "spleen", "idx": "2"}, "kidney"]}) == [Segment(1, "liver")]


def test_a_value_without_a_name_is_refused_where_others_have_one():
    mask = np.array([[[0, 1, 3]]], np.uint8)
    with pytest.raises(LabelMismatch, match="value 3, and label_info names only 1"):
        check_values(mask, {"label_info": [LIVER]})
    check_values(mask, {})
