import contextlib
import socket
import threading
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from deepgrow3d_app.errors import ServerFault
from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress
from deepgrow3d_app.serving.dicomweb.listed import ImageSeries
from deepgrow3d_app.serving.dicomweb.pacs import CONNECT_S, Pacs, _listed, is_uid, referenced_series

SEG_METADATA = {
    "00080018": {"vr": "UI", "Value": ["1.9"]},
    "00081115": {"vr": "SQ", "Value": [{"0020000E": {"vr": "UI", "Value": ["1.2.3.4"]}}]},
    "00080023": {"vr": "DA", "Value": ["20261130"]},
    "00080033": {"vr": "TM", "Value": ["101112.5"]},
}
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


def test_a_silent_server_is_given_up_after_the_time_that_is_set(monkeypatch):
    limits = []

    def silent(self, request, timeout=None, **kwargs):
        limits.append(timeout)
        raise requests.ReadTimeout(request=request)

    monkeypatch.setattr(HTTPAdapter, "send", silent)
    pacs = Pacs(DicomWebAddress("http://archive/dicom-web", timeout_s=2.5))
    for ask in (
        pacs.images,
        lambda: pacs.segmentations({"1.2"}),
        lambda: pacs.fetch_one("1.2", "1.2.3"),
    ):
        with pytest.raises(ServerFault, match="does not answer"):
            ask()
    assert pacs.remove_segmentation("1.2", "1.2.3", "1.2.3.4") is False
    assert limits == [(CONNECT_S, 2.5)] * 4


def listing(monkeypatch, uids, metadata):
    """A :class:`Pacs` whose server lists segmentations; ``metadata`` tells what it says of each, or raises."""
    pacs = Pacs(DicomWebAddress("http://archive/dicom-web"))
    listed: list[Any] = [
        {**SERIES, "00080060": {"vr": "CS", "Value": ["SEG"]}, "0020000E": {"vr": "UI", "Value": [uid]}} for uid in uids
    ]

    def search(search_filters: Any, fields: Any, limit: int, offset: int) -> Any:
        wanted = search_filters.get("SeriesInstanceUID")
        found = [one for one in listed if wanted in (None, one["0020000E"]["Value"][0])]
        return found[offset : offset + 2]  # fewer than it is asked for

    monkeypatch.setattr(pacs._client, "search_for_series", search)
    monkeypatch.setattr(pacs._client, "retrieve_series_metadata", lambda study_uid, series_uid: metadata(series_uid))
    return pacs


def refused(status):
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


def test_a_segmentation_that_says_nothing_hides_no_other_and_is_asked_again(monkeypatch):
    answers = {"1.5": refused(404), "1.6": [], "1.7": [SEG_METADATA], "1.8": [{"0020000E": {"vr": "UI"}}]}

    def metadata(series_uid):
        if isinstance(answers[series_uid], Exception):
            raise answers[series_uid]
        return answers[series_uid]

    pacs = listing(monkeypatch, answers, metadata)
    found = pacs.segmentations({"1.2.3"})
    assert found.series_uids == set(answers)
    assert [(one.series_uid, one.image_series_uid, one.made_at) for one in found.described] == [
        ("1.7", "1.2.3.4", "20261130101112500000")
    ]
    answers.update({"1.5": [SEG_METADATA], "1.6": [SEG_METADATA]})
    assert [one.series_uid for one in pacs.segmentations({"1.2.3"}).described] == ["1.5", "1.6", "1.7"]


def test_a_server_that_goes_away_while_it_is_asked_is_no_short_list(monkeypatch):
    def metadata(series_uid):
        raise requests.ConnectionError

    with pytest.raises(ServerFault, match="nothing answers"):
        listing(monkeypatch, ["1.5"], metadata).segmentations({"1.2.3"})


def test_only_segmentations_are_removed(monkeypatch):
    asked = []

    def delete(url):
        asked.append(url)
        response = requests.Response()
        response.status_code = 204
        return response

    pacs = listing(monkeypatch, ["1.5", "1.6"], lambda uid: [])
    monkeypatch.setattr(pacs._session, "delete", delete)
    instances = {"1.5": ["1.5.1"], "1.6": ["1.6.1", "1.6.2"]}
    monkeypatch.setattr(
        pacs._client,
        "search_for_instances",
        lambda study_uid, series_uid: [{"00080018": {"vr": "UI", "Value": [one]}} for one in instances[series_uid]],
    )
    for study_uid, series_uid in (("1.2.3", "1.2.3.4"), ("1.2.3", "../../1.5"), ("1.2/../..", "1.5"), ("1.2.3", "")):
        assert pacs.remove_segmentation(study_uid, series_uid, "1.5.1") is False
    assert pacs.remove_segmentation("1.2.4", "1.5", "1.5.1") is False, "of another study"
    assert pacs.remove_segmentation("1.2.3", "1.5", "1.5.2") is False, "another one"
    assert pacs.remove_segmentation("1.2.3", "1.6", "1.6.1") is False, "not alone in its series"
    assert asked == []
    assert pacs.remove_segmentation("1.2.3", "1.5", "1.5.1") is True
    assert asked == ["http://archive/dicom-web/studies/1.2.3/series/1.5"]


def test_a_series_that_is_not_there_has_no_instances(monkeypatch):
    pacs = listing(monkeypatch, [], lambda uid: [])

    def missing(study_uid, series_uid):
        raise refused(404)

    monkeypatch.setattr(pacs._client, "search_for_instances", missing)
    assert pacs.instances("1.2.3", "1.5") == set()


@contextlib.contextmanager
def archive_of(*answers):
    """The address of a server that answers once on each connection, or closes it (None) or is silent ("")."""
    asked: list[str] = []

    def serve():
        kept = []
        for answer in answers:
            connection, _ = listener.accept()
            kept.append(connection)
            asked.append(connection.recv(65536).split(b" ")[0].decode())
            if answer is None:
                connection.close()
            elif answer:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                connection.close()
        for connection in kept:
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/dicom-web", asked
        thread.join()


def test_what_a_server_breaks_off_is_asked_for_once_more():
    with archive_of(None, b"[]") as (url, asked):
        assert Pacs(DicomWebAddress(url)).instances("1.2.3", "1.2.3.4") == set()
    assert asked == ["GET", "GET"]


@pytest.mark.parametrize(("answers", "timeout_s"), [((None, None), 5.0), (("",), 0.1)])
def test_nothing_is_asked_for_a_third_time_nor_where_nothing_came_in_time(answers, timeout_s):
    with archive_of(*answers) as (url, asked), pytest.raises(ServerFault, match=r"answers? "):
        Pacs(DicomWebAddress(url, timeout_s=timeout_s)).instances("1.2.3", "1.2.3.4")
    assert asked == ["GET"] * len(answers)


def test_what_may_have_been_stored_is_not_sent_again():
    with archive_of(None) as (url, asked), pytest.raises(requests.ConnectionError):
        Pacs(DicomWebAddress(url))._session.post(url)
    assert asked == ["POST"]


def test_credentials_go_to_no_other_host(monkeypatch):
    """Orthanc's own paths lie beside that of DICOMweb; an address without a path has none."""
    asked = []

    def send(self, request, **kwargs):
        asked.append(request.url)
        response = requests.Response()
        response.status_code = 405
        return response

    monkeypatch.setattr(HTTPAdapter, "send", send)
    pacs = Pacs(DicomWebAddress("https://archive.hospital", username="ann", password="secret"))
    assert pacs._remove_from_orthanc("1.5") is False
    assert asked == []
