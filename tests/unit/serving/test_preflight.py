import socket
import subprocess
import sys

import pytest

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.preflight import Access

SERVE_NOTHING = """
import sys
from deepgrow3d_app.cli import main

sys.argv = ["deepgrow3d", "serve", "--studies", "nowhere"]
try:
    main()
finally:
    print([name for name in ("torch", "monai") if name in sys.modules])
"""


def test_what_cannot_start_is_refused_before_anything_large_is_imported():
    ended = subprocess.run([sys.executable, "-c", SERVE_NOTHING], capture_output=True, text=True, check=False)
    assert ended.stderr.startswith("Error: There is no folder 'nowhere'.")
    assert ended.stdout == "[]\n"


def test_ohif_looks_for_its_address_before_it_starts_orthanc(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "deepgrow3d_app", "ohif", "--folder", str(tmp_path / "demo"), "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr.startswith(f"Error: Port {port} of 127.0.0.1 is in use.")
    assert not (tmp_path / "demo").exists()


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
