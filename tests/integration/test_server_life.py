"""The server's life: busy, killed, started again, and refusing to start."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import signal
import socket
import time
import uuid
import zipfile
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher, Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CLEANED_UP_S = 120
IMAGE = "ct-trunk"


@pytest.fixture
def studies(tmp_path: Path, phantom: Phantom) -> Path:
    """A folder with one study, ``patient``."""
    folder = tmp_path / "studies of one"
    folder.mkdir()
    shutil.copy(phantom.file, folder / "patient.nii.gz")
    return folder


def test_info_answers_while_clicks_run(server: Server) -> None:
    label = str(uuid.uuid4())  # nothing is remembered for it: every click is a first one, and slow

    def click(n: int) -> bool:
        params = {"foreground": [[30 + n, 50, 56]], "background": [], "label": label}
        return server.infer(params, image=IMAGE, output="json").ok

    with ThreadPoolExecutor(12) as pool:
        clicks = [pool.submit(click, n) for n in range(12)]
        wait(clicks, return_when=FIRST_COMPLETED)  # so the others wait in the server, or run
        for _ in range(5):
            server.json("/info/")
        is_over = all(future.done() for future in clicks)
        assert all(future.result() for future in clicks)
    assert not is_over, "The clicks were over before /info/ had answered five times."


def test_concurrent_clicks_are_answered_as_if_alone(server: Server) -> None:
    images_and_clicks = [(IMAGE, [[30, 50, 56 + 2 * n]]) for n in range(4)] + [
        ("labelled", [[13, 20, 8 + n]]) for n in range(4)
    ]
    alone = [server.mask(image, clicks, client_id="alone") for image, clicks in images_and_clicks]
    with ThreadPoolExecutor(len(alone)) as pool:
        futures = [
            pool.submit(server.mask, image, clicks, client_id="in a crowd") for image, clicks in images_and_clicks
        ]
        together = [future.result() for future in futures]
    for mask, expected in zip(together, alone, strict=True):
        assert np.array_equal(mask, expected)


def test_labels_that_are_saved_at_once_are_all_kept(launcher: Launcher, studies: Path, phantom: Phantom) -> None:
    server = launcher.serve(studies)
    labels = {f"reader {n}": (phantom.label + n).astype(np.uint8) for n in range(8)}

    def save(tag: str) -> int:
        content = labels[tag].tobytes(order="F")
        return server.save_label("patient", "label.bin", content, tag=tag).status_code

    with ThreadPoolExecutor(len(labels)) as pool:
        assert set(pool.map(save, labels)) == {200}
    datastore = server.json("/info/")["datastore"]
    assert datastore["label_tags"] == dict.fromkeys(labels, 1)
    assert datastore["completed"] == 0  # only "final" completes an image
    for tag, label in labels.items():
        back = server.request("GET", "/datastore/label", params={"label": "patient", "tag": tag}).content
        assert np.array_equal(nib.Nifti1Image.from_bytes(gzip.decompress(back)).dataobj, label)


def test_a_label_survives_kill_9(launcher: Launcher, studies: Path, phantom: Phantom) -> None:
    first = launcher.serve(studies)
    saved = first.save_label("patient", "label.nii.gz", phantom.label_file)
    first.kill()
    assert saved.json() == {"image": "patient", "label": "patient", "version": 1, "notice": None}

    second = launcher.serve(studies)

    assert second.json("/info/")["datastore"]["completed"] == 1
    label = second.json("/datastore/?output=all")["objects"]["patient"]["labels"]["final"]
    assert label["info"]["label_info"][0] == {"name": "liver", "idx": 1}
    back = second.request("GET", "/datastore/label", params={"label": "patient", "tag": "final"})
    image = nib.Nifti1Image.from_bytes(gzip.decompress(back.content))
    assert np.array_equal(np.asarray(image.dataobj), phantom.label)
    assert np.allclose(image.affine, phantom.affine, atol=1e-4)
    assert not [path for path in studies.rglob("*") if path.name.endswith((".part", ".tmp"))]
    assert second.mask("patient", [phantom.centre])[tuple(phantom.centre)] == 1


def test_what_a_kill_in_the_middle_of_an_upload_left_is_removed(launcher: Launcher, studies: Path) -> None:
    incoming = studies / ".deepgrow3d" / "incoming"
    (incoming / "deepgrow3d-killed").mkdir(parents=True)
    left = [studies / f".{'0a' * 16}.part", incoming / "deepgrow3d-killed" / "big.nii", incoming / "deepgrow3d-killed"]
    written_now = studies / f".{'0b' * 16}.part"  # by another server
    for file in (*left[:2], written_now):
        file.write_bytes(b"voxels")
    for path in left:
        os.utime(path, (0, 0))

    launcher.serve(studies)

    deadline = time.monotonic() + CLEANED_UP_S
    while remaining := [path for path in left if path.exists()]:
        assert time.monotonic() < deadline, remaining
        time.sleep(0.1)
    assert written_now.is_file()


def test_uploads_and_downloads_leave_nothing_behind(launcher: Launcher, studies: Path, phantom: Phantom) -> None:
    server = launcher.serve(studies)
    image = server.request("PUT", "/datastore/image?image=other", files={"file": ("a.nii.gz", b"no image")})
    assert image.status_code == 400
    assert server.save_label("patient", "label.nii.gz", phantom.label_file).ok
    data_set = server.request("GET", "/datastore/dataset")
    with zipfile.ZipFile(io.BytesIO(data_set.content)) as archive:
        assert set(archive.namelist()) == {"image/patient.nii.gz", "label/patient.nii.gz", "metadata.json"}
    assert server.stop() in (0, -signal.SIGTERM)
    incoming = studies / ".deepgrow3d" / "incoming"
    assert [*incoming.iterdir(), *(launcher.folder / "tmp").iterdir()] == []


def test_ctrl_c_stops_it_quietly_and_it_can_start_again(launcher: Launcher, studies: Path, phantom: Phantom) -> None:
    first = launcher.serve(studies)
    assert first.save_label("patient", "label.bin", phantom.label.tobytes(order="F")).ok
    session = first.request("PUT", "/session/", files={"files": ("ct.nii.gz", phantom.file.read_bytes())}).json()
    before = first.json("/datastore/?output=all")
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(30) in (0, 130)
    assert "Traceback" not in first.log.read_text()

    second = launcher.serve(studies)

    assert second.json("/datastore/?output=all") == before
    assert second.json(f"/session/{session['session_id']}")["name"] == session["session_id"]
    assert second.stop() in (0, -signal.SIGTERM)
    assert "Traceback" not in second.log.read_text()


def assert_does_not_start(launcher: Launcher, arguments: list[str], *says: str) -> None:
    """``deepgrow3d serve`` with ``arguments`` ends at once, with one line that holds all of ``says``."""
    done = launcher.deepgrow3d("serve", *arguments)
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert [text for text in says if text not in done.stderr] == [], done.stderr


def test_missing_weights(launcher: Launcher, studies: Path) -> None:
    arguments = ["--studies", str(studies), "--checkpoint", "none.safetensors"]
    assert_does_not_start(launcher, arguments, "none.safetensors", "deepgrow3d train", "--checkpoint")


def test_damaged_weights(launcher: Launcher, studies: Path) -> None:
    shipped = (ROOT / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors").read_bytes()
    (launcher.folder / "half.safetensors").write_bytes(shipped[: len(shipped) // 2])
    arguments = ["--studies", str(studies), "--checkpoint", "half.safetensors"]
    assert_does_not_start(launcher, arguments, "'half.safetensors' is damaged")


def test_missing_studies(launcher: Launcher) -> None:
    assert_does_not_start(launcher, ["--studies", "nowhere"], "'nowhere'", "Make it")


def test_a_port_that_is_taken(launcher: Launcher, studies: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_does_not_start(launcher, ["--studies", str(studies), "--port", port], f"Port {port}", "in use", "--port")


def test_an_address_that_is_not_this_machines(launcher: Launcher, studies: Path) -> None:
    # A documentation address (RFC 5737): no machine has it.
    assert_does_not_start(launcher, ["--studies", str(studies), "--host", "192.0.2.1"], "192.0.2.1", "--host")


def test_monai_labels_launcher_refuses_missing_weights_in_words(launcher: Launcher, studies: Path) -> None:
    shutil.copytree(ROOT / "apps", launcher.folder / "apps", ignore=shutil.ignore_patterns("*.safetensors"))
    # Its start script takes no folder with a space in its name.
    shutil.copytree(studies, launcher.folder / "studies")
    command = ["monailabel", "start_server", "--app", "apps/deepgrow3d", "--studies", "studies"]
    done = launcher.run([*command, "--uvicorn_app", "deepgrow3d_app.serving.server:app"])
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert re.search(r"DeepGrow 3D cannot start\. There is no checkpoint at '.*deepgrow3d\.safetensors'", output)
    assert "Traceback" not in output
