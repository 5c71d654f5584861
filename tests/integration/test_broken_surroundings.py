"""A full disk, one that cannot be written, damaged records, a DICOMweb server that keeps silent: each is an answer."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
import torch

from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher, Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DISK = "size=16m"


@pytest.fixture
def small_disk(launcher: Launcher, phantom: Phantom) -> Iterator[Path]:
    """A folder of studies on a disk of its own, with one image."""
    folder = launcher.folder / "studies"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a disk can be mounted by root only")
    shutil.copy(phantom.file, folder / "ct.nii.gz")
    yield folder
    launcher.end_all()
    subprocess.run(["umount", str(folder)], check=True)


def reason(answer: requests.Response) -> str:
    assert set(answer.json()) == {"detail"}
    return str(answer.json()["detail"])


def fill(folder: Path) -> Path:
    """A file that leaves no room for another."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as content:
        try:
            while content.write(bytes(1 << 12)):
                pass
        except OSError:
            pass
    return file


def test_a_full_disk(launcher: Launcher, small_disk: Path, phantom: Phantom) -> None:
    server = launcher.serve(small_disk)
    clicks = {"foreground": [phantom.centre], "background": []}
    assert server.infer(clicks, image="ct").ok
    assert server.save_label("ct", "label.nii.gz", phantom.label_file).ok
    before = server.request("GET", "/datastore/label?label=ct&tag=final").content
    filler = fill(small_disk)

    refused = [
        server.save_label("ct", "label.nii.gz", phantom.label_file),
        server.request("PUT", "/datastore/?image=other", files={"file": ("other.nii.gz", phantom.file.read_bytes())}),
        server.request("PUT", "/session/", files={"files": ("ct.nii.gz", phantom.file.read_bytes())}),
    ]
    assert [answer.status_code for answer in refused] == [507] * 3, [answer.text for answer in refused]
    assert all("disk is full" in reason(answer) for answer in refused)
    assert server.request("GET", "/datastore/label?label=ct&tag=final").content == before
    more = {"foreground": [phantom.centre, [phantom.centre[0] + 1, *phantom.centre[1:]]], "background": []}
    assert server.infer(more, image="ct").ok, "a click writes nothing that matters"
    assert server.request("GET", "/health/ready").status_code == 503
    assert server.request("GET", "/health/live").ok

    filler.unlink()
    assert server.save_label("ct", "label.nii.gz", phantom.label_file).json()["version"] == 2
    assert not list(small_disk.rglob("*.part"))


def test_a_disk_that_cannot_be_written(launcher: Launcher, small_disk: Path, phantom: Phantom) -> None:
    server = launcher.serve(small_disk)
    clicks = {"foreground": [phantom.centre], "background": []}
    assert server.save_label("ct", "label.nii.gz", phantom.label_file).ok
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = server.save_label("ct", "label.nii.gz", phantom.label_file)
    assert refused.status_code == 507, refused.text
    assert "read-only" in reason(refused)
    assert server.infer(clicks, image="ct").ok
    assert server.request("GET", "/datastore/label?label=ct&tag=final").ok
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert server.save_label("ct", "label.nii.gz", phantom.label_file).ok


def test_an_image_that_cannot_be_read(launcher: Launcher, small_disk: Path, phantom: Phantom) -> None:
    server = launcher.serve(small_disk)
    (small_disk / "ct.nii.gz").write_bytes(phantom.file.read_bytes()[:1000])
    refused = server.infer({"foreground": [phantom.centre], "background": []}, image="ct")
    assert refused.status_code == 400
    assert "ct.nii.gz" in reason(refused)
    (small_disk / "ct.nii.gz").unlink()
    gone = server.infer({"foreground": [phantom.centre], "background": []}, image="ct")
    assert gone.status_code == 404


def small_network(file: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(32, 32, 32))
    Checkpoint(spec, weights_of(build_network(spec))).save(file)
    return file


def cut(file: Path) -> None:
    """Leave what a crash of the disk may leave."""
    file.write_bytes(file.read_bytes()[:20])


def test_damaged_records_of_trainings_and_versions(launcher: Launcher, phantom: Phantom) -> None:
    studies = launcher.folder / "studies"
    training = studies / ".deepgrow3d" / "training" / "jobs" / "0001"
    training.mkdir(parents=True)
    (training / "state.json").write_text('{"id": "00')
    shutil.copy(phantom.file, studies / "ct.nii.gz")
    checkpoint = small_network(launcher.folder / "model" / "small.safetensors", 0)
    server = launcher.serve(studies, "--checkpoint", str(checkpoint))
    for path in ("/info/", "/status", "/info/"):
        server.json(path)
    assert server.request("GET", "/train/").status_code == 404
    assert server.json("/train/?all=true") == []
    assert server.log.read_text().count("Training 0001 is passed over") == 1
    resumed = server.request("POST", "/train/deepgrow3d", json={"resume": "0001"})
    assert resumed.status_code == 503
    assert "remove the folder of that training" in reason(resumed)

    def put(seed: int) -> int:
        content = small_network(launcher.folder / "other.safetensors", seed).read_bytes()
        answer = server.request("PUT", "/model/deepgrow3d", files={"file": ("other.safetensors", content)})
        assert answer.ok, answer.text
        return int(answer.json()["version"])

    assert put(1) == 2
    cut(checkpoint.parent / "versions" / "small-0001.safetensors")
    back = server.request("POST", "/model/rollback/deepgrow3d?version=1")
    assert (back.status_code, reason(back)) == (503, "Version 1 of 'small' is damaged. Choose another version.")
    cut(checkpoint.parent / "versions" / "small-0001.json")
    back = server.request("POST", "/model/rollback/deepgrow3d?version=1")
    assert back.status_code == 503
    assert "record of version 1 of 'small' is damaged" in reason(back)
    assert put(2) == 3
    versions = server.json("/model/versions/deepgrow3d")
    assert (versions["served"], [version["number"] for version in versions["versions"]]) == (3, [2, 3])

    server.stop()
    second = launcher.serve(studies, "--checkpoint", str(checkpoint))
    second.json("/info/")
    assert "Traceback" not in second.log.read_text()


class Silent:
    """Takes connections, and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/dicom-web"
        self._taken: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        try:
            while True:
                self._taken.append(self._listener.accept()[0])
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()
        for one in self._taken:
            one.close()


@pytest.mark.parametrize("kind", ["silent", "gone"])
def test_a_dicomweb_server_that_is_of_no_use(launcher: Launcher, kind: str) -> None:
    silent = Silent()
    if kind == "gone":
        silent.close()
    launcher.settings["MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT"] = "2"
    server: Server = launcher.start_command(launcher.folder, "serve", "--studies", silent.url)
    started = time.monotonic()
    answer = server.request("GET", "/datastore/?output=all")
    asked = server.infer({"foreground": [[1, 1, 1]], "background": []}, image="1.2.3")
    assert time.monotonic() - started < 30
    assert answer.status_code in (200, 502), answer.text
    assert asked.status_code in (404, 502), asked.text
    assert reason(asked)
    assert server.request("GET", "/health/live").ok
    silent.close()
