import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.dicomweb.store_request import StoreRequest


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_files_come_back(files):
    content_type, body = StoreRequest(files).encoded()
    assert list(StoreRequest.parse(content_type, body).files) == files


def test_as_a_browser_sends_them():
    head = b"--x\r\nContent-Type: application/dicom\r\n\r\n"
    body = head + b"DICM\r\n\x00\r\n" + head + b"two\r\n--x--"
    parsed = StoreRequest.parse('multipart/related; type=application/dicom; boundary="x"', body)
    assert list(parsed.files) == [b"DICM\r\n\x00", b"two"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("", b""),
        ("multipart/related", b"--x\r\n"),
        ("multipart/related; boundary=x", b"--x\r\nno header"),
    ],
)
def test_what_is_none(content_type, body):
    with pytest.raises(InvalidRequest, match="Send multipart/related"):
        StoreRequest.parse(content_type, body)
