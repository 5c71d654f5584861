"""An Orthanc of our own, on this machine: a DICOMweb server to try things with, and to test with."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import requests

from deepgrow3d_app.errors import NotFound, ServerFault
from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress
from deepgrow3d_app.serving.dicomweb.pacs import Pacs

PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"),
)
START_S = 30


@contextlib.contextmanager
def running_orthanc(
    folder: Path, port: int = 8042, username: str = "", password: str = ""
) -> Iterator[DicomWebAddress]:
    """Orthanc with its DICOMweb plugin, reachable from this machine only, until the end of the block.

    Args:
        folder: holds its database, settings and log; made where it is missing, and kept.
        port: where it listens; the next free one where something else does.
        username, password: who may ask; "" for everybody on this machine.

    Raises:
        NotFound: Orthanc or its plugin is not installed.
        ServerFault: it does not start.
    """
    program = shutil.which("Orthanc")
    plugin = next((file for file in PLUGINS if file.is_file()), None)
    if program is None or plugin is None:
        raise NotFound("Orthanc is not installed. On Debian: apt install orthanc orthanc-dicomweb")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port(port)
    settings = {
        "Name": "DeepGrow 3D demo",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": bool(username),
        "RegisteredUsers": {username: password} if username else {},
        "DicomServerEnabled": False,
        "Plugins": [str(plugin)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    (folder / "orthanc.json").chmod(0o600)
    address = DicomWebAddress(f"http://127.0.0.1:{port}/dicom-web", username, password)
    with (folder / "orthanc.log").open("wb") as log:
        command = [program, str(folder / "orthanc.json")]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603 - both words are ours
        try:
            _wait(process, address, folder / "orthanc.log")
            yield address
        finally:
            process.terminate()
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()


def store_files(address: DicomWebAddress, files: Iterable[Path]) -> None:
    """Store DICOM files; those that the server has already stay as they are.

    Raises:
        ServerFault: it does not take them.
    """
    pacs = Pacs(address)
    for file in files:
        pacs.store(file.read_bytes())


def _wait(process: subprocess.Popen[bytes], address: DicomWebAddress, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            who = (address.username, address.password) if address.username else None
            if requests.get(f"{address.url}/studies", params={"limit": "1"}, auth=who, timeout=START_S).ok:
                return
        time.sleep(0.05)
    raise ServerFault(address.url, f"Orthanc did not start, and says why in {log.name}")


def _free_port(port: int) -> int:
    for candidate in range(port, port + 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", candidate)):
            return candidate
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
