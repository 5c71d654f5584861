import pytest

from deepgrow3d_app.serving.launch import _address


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("fe80::1", "http://[fe80::1]:8000"),
        ("workstation", "http://workstation:8000"),
    ],
)
def test_the_printed_address_opens_in_a_browser(host, address):
    assert _address(host, 8000) == address
