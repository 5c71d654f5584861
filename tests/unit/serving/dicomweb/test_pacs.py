from deepgrow3d_app.serving.dicomweb.pacs import ImageSeries, _listed, is_uid, referenced_series

SERIES = {
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "0020000E": {"vr": "UI", "Value": ["1.2.3.4"]},
    "00201209": {"vr": "IS", "Value": [20]},
}


def test_a_listed_series():
    assert _listed(SERIES) == ImageSeries("1.2.3.4", "1.2.3", "CT", 20, "", "", "")


def test_series_that_cannot_be_used_are_left_out():
    assert _listed({**SERIES, "0020000E": {"vr": "UI", "Value": ["../../etc"]}}) is None
    assert _listed({**SERIES, "0020000D": {"vr": "UI"}}) is None
    assert _listed({**SERIES, "00201209": {"vr": "IS", "Value": ["many"]}}) is None
    assert _listed({"nonsense": 3}) is None


def test_uids_are_fit_for_file_names():
    assert is_uid("1.2.840.10008")
    assert not any(map(is_uid, ("", "..", "1..2", ".1", "1/2", "1" * 65, "1.2\n")))


def test_what_is_no_segmentation_refers_to_nothing():
    assert referenced_series(b"") is None
    assert referenced_series(b"no DICOM") is None
