import pytest

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.launch import Access, _address


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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_this_machine_is_safe_without_sign_in(host):
    Access().check_host(host, is_open=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "workstation", "192.168.1.5"])
def test_other_machines_are_not(host, tmp_path):
    with pytest.raises(InvalidRequest, match=f"At '{host}', other machines could read and change these studies"):
        Access().check_host(host, is_open=True)
    Access().check_host(host, is_open=False)
    Access(certificate=tmp_path / "tls.pem").check_host(host, is_open=True)


def test_files_for_tls_have_to_be_there(tmp_path):
    file = tmp_path / "tls.pem"
    with pytest.raises(InvalidRequest, match="no file"):
        Access(certificate=file).check()
    with pytest.raises(InvalidRequest, match="no certificate"):
        Access(key=file).check()
    file.touch()
    with pytest.raises(InvalidRequest, match=r"tls.pem' and '.*tls.pem' cannot be used for TLS"):
        Access(certificate=file, key=file).check()
