"""The loop that learns, over HTTP: labels in, training by the server, versions out; stops, kills, clicks meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec
from tests.integration.conftest import ROOT, Launcher, Server, nifti, voxels_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HIPPOCAMPI = ROOT / "sample-data" / "reference" / "mr-hippocampus"
IMAGES = sorted(path.name.removesuffix(".nii.gz") for path in (HIPPOCAMPI / "images").iterdir())
NAMES = {1: "anterior hippocampus", 2: "posterior hippocampus"}
CENTRE = [18, 25, 18]
END_S = 200


@pytest.fixture
def studies(launcher: Launcher) -> Path:
    """The four hippocampi, nothing labelled, and a small untrained network to serve."""
    folder = launcher.folder / "studies"
    folder.mkdir()
    for name in IMAGES:
        shutil.copy(HIPPOCAMPI / "images" / f"{name}.nii.gz", folder)
    torch.manual_seed(0)
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(32, 32, 32), spacing_mm=(1.5, 1.5, 1.5), walker_sigmas=(0.05,))
    Checkpoint(spec, weights_of(build_network(spec))).save(launcher.folder / "model" / "small.safetensors")
    settings = {
        "DEEPGROW3D_REPLAY_FOLDERS": json.dumps([str(ROOT / "sample-data" / "replay" / "mr-abdomen")]),
        "DEEPGROW3D_REFERENCE_STRUCTURES": '["spleen"]',
    }
    launcher.settings.update(settings)
    return folder


@pytest.fixture
def server(launcher: Launcher, studies: Path) -> Iterator[Server]:
    """Serves the small network; every image has a final label."""
    server = serve(launcher, studies)
    label_all(server)
    yield server
    launcher.end_all()


def serve(launcher: Launcher, studies: Path) -> Server:
    return launcher.serve(studies, "--checkpoint", str(launcher.folder / "model" / "small.safetensors"))


def label_all(server: Server) -> None:
    for name in IMAGES:
        content = (HIPPOCAMPI / "labels" / f"{name}.nii.gz").read_bytes()
        assert server.save_label(name, "label.nii.gz", content, names=NAMES).ok


def train(server: Server, **order: Any) -> dict[str, Any]:
    response = server.request("POST", "/train/deepgrow3d", json={"client_id": "anna", "deepgrow3d": order})
    assert response.ok, response.text
    return dict(response.json())


def ended(server: Server) -> dict[str, Any]:
    """The training, once it has ended."""
    return until(server, lambda state: state["status"] != "RUNNING")


def until(server: Server, is_so: Any) -> dict[str, Any]:
    deadline = time.monotonic() + END_S
    while not is_so(state := server.json("/train/")):
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    return dict(state)


def trainers_of(folder: Path) -> list[int]:
    """The processes that train in ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"deepgrow3d_app.retraining.process" in words and any(str(folder).encode() in word for word in words):
            found.append(int(process.name))
    return found


def test_labels_become_a_network_that_is_served_without_a_restart(server: Server) -> None:
    before = server.json("/model/info/deepgrow3d")
    started = train(server, max_epochs=1, steps_per_epoch=3, force=True)
    assert (started["id"], started["status"], started["request"]["max_epochs"]) == ("0001", "RUNNING", 1)
    second = server.request("POST", "/train/", json={})
    assert second.status_code == 429
    assert "Training 0001 is running" in second.json()["detail"]
    assert int(second.headers["retry-after"]) >= 1
    answers = 0
    while server.json("/train/")["status"] == "RUNNING":
        assert server.request("GET", "/train/?check_if_running=true").status_code in (200, 404)
        server.mask(IMAGES[0], [CENTRE])
        answers += 1
    assert answers > 0
    done = ended(server)
    assert (done["status"], done["step"], done["epoch"], done["version"]) == ("DONE", 3, 1, 2), done
    assert done["cases"] == [3, 1]
    assert set(done["dice"]) == {"1", "3", "5"}
    assert [step for step, _ in done["curve"]] == [0, 3]
    assert done["decision"]["is_published"]
    assert done["message"].startswith("Published")
    assert any("held-out" in line for line in done["details"])
    stats = server.json("/info/")["train_stats"]["deepgrow3d"]
    assert (stats["epoch"], stats["total_epochs"]) == (1, 1)
    assert stats["best_metric"] == pytest.approx(max(dice for _, dice in done["curve"]), abs=1e-4)
    assert stats["total_time"]
    assert server.json("/model/info/deepgrow3d") != before
    server.mask(IMAGES[0], [CENTRE])

    versions = server.json("/model/versions/deepgrow3d")
    assert (versions["served"], [version["made_by"] for version in versions["versions"]]) == (2, ["found", "training"])
    last = versions["versions"][-1]
    assert (last["job"], last["client"], last["parent"]) == ("0001", "anna", versions["versions"][0]["sha256"])
    assert last["duration_s"] > 0
    assert json.loads(last["data"]["data"])[0]["cases"] == 3
    back = server.request("POST", "/model/rollback/deepgrow3d")
    assert back.json()["number"] == 1
    assert server.json("/model/versions/deepgrow3d")["served"] == 1
    assert server.json("/model/info/deepgrow3d")["checksum"] == before["checksum"]


def test_only_what_changed_is_prepared_and_a_flagged_label_is_left_out(server: Server) -> None:
    train(server, max_epochs=1, steps_per_epoch=1, force=True)
    assert "4 cases, 4 of them new or changed" in " ".join(ended(server)["details"])
    label = np.zeros(voxels_of((HIPPOCAMPI / "images" / f"{IMAGES[1]}.nii.gz").read_bytes()).shape, np.uint8)
    label[10:20, 10:20, 10:20] = 3
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    assert server.save_label(IMAGES[1], "x.bin", label.tobytes(order="F"), names={3: "block"}).ok, affine
    flagged = json.dumps({"segmentationMeta": {"status": "flagged"}})
    query = {"label": IMAGES[0], "tag": "final", "info": flagged}
    assert server.request("PUT", "/datastore/label/info", params={"label": IMAGES[0], "tag": "final"}, data=query).ok
    train(server, max_epochs=1, steps_per_epoch=1, force=True)
    assert "3 cases, 1 of them new or changed" in " ".join(ended(server)["details"])


def test_a_training_stops_at_once_and_is_gone_on_with(server: Server) -> None:
    train(server, max_epochs=1, steps_per_epoch=60, force=True)
    until(server, lambda state: state["step"] > 0)
    asked = time.monotonic()
    stopped = server.request("DELETE", "/train/").json()
    assert time.monotonic() - asked < 6  # a machine may be busy; the process itself is given 4.5 s
    assert stopped["status"] == "STOPPED"
    assert 0 < stopped["step"] < 60
    assert trainers_of(server.folder) == []
    response = server.request("POST", "/train/deepgrow3d", json={"resume": True})
    assert response.ok, response.text
    done = ended(server)
    assert (done["id"], done["status"], done["step"]) == ("0001", "DONE", 60), done
    again = server.request("POST", "/train/deepgrow3d", json={"resume": "0001"})
    assert again.status_code == 400
    assert "nothing to go on with" in again.json()["detail"]


def test_a_training_ends_with_its_server_and_is_gone_on_with_by_the_next(
    server: Server, launcher: Launcher, studies: Path
) -> None:
    train(server, max_epochs=1, steps_per_epoch=40, force=True)
    until(server, lambda state: state["step"] > 0)
    assert len(trainers_of(server.folder)) == 1
    os.kill(server.process.pid, 9)
    server.process.wait()
    deadline = time.monotonic() + 10
    while trainers_of(server.folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = serve(launcher, studies)
    state = second.json("/train/")
    assert state["status"] == "INTERRUPTED"
    assert "It can be resumed" in state["message"]
    assert second.request("POST", "/train/deepgrow3d", json={"resume": True}).ok
    done = ended(second)
    assert (done["status"], done["step"], done["version"]) == ("DONE", 40, 2), done


def test_a_training_takes_only_what_clicks_leave(server: Server) -> None:
    train(server, max_epochs=1, steps_per_epoch=40)
    until(server, lambda state: state["step"] > 0)
    (trainer,) = trainers_of(server.folder)
    assert os.sched_getscheduler(trainer) == os.SCHED_IDLE
    # Its session's share as well: else a click waits for half of each core, fifteen times as long.
    shared_by_session = Path(f"/proc/{trainer}/autogroup")
    if shared_by_session.exists():
        assert shared_by_session.read_text().split()[-1] == "19"
    server.request("DELETE", "/train/")


def test_a_killed_trainer_is_told_and_is_gone_on_with(server: Server) -> None:
    train(server, max_epochs=1, steps_per_epoch=40, force=True)
    until(server, lambda state: state["step"] > 0)
    (trainer,) = trainers_of(server.folder)
    os.kill(trainer, 9)
    assert ended(server)["status"] == "ERROR"
    server.mask(IMAGES[0], [CENTRE])
    assert server.request("POST", "/train/deepgrow3d", json={"resume": True}).ok
    done = ended(server)
    assert (done["status"], done["step"]) == ("DONE", 40), done


def test_an_orderly_end_of_the_server_saves_the_training(server: Server, launcher: Launcher, studies: Path) -> None:
    train(server, max_epochs=1, steps_per_epoch=60, force=True)
    until(server, lambda state: state["step"] > 0)
    assert server.stop() in (0, -15)
    assert trainers_of(server.folder) == []
    state = serve(launcher, studies).json("/train/")
    assert state["status"] == "INTERRUPTED"
    assert state["message"].startswith("The server was stopped")


def test_a_worse_network_is_not_published(launcher: Launcher, studies: Path) -> None:
    """The shipped network, trained hard on labels that lie anywhere but on the hippocampus."""
    model = launcher.folder / "model" / "small.safetensors"
    shutil.copy(ROOT / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors", model)
    server = serve(launcher, studies)
    generator = np.random.default_rng(0)
    for name in IMAGES:
        shape = voxels_of((HIPPOCAMPI / "images" / f"{name}.nii.gz").read_bytes()).shape
        label = np.zeros(shape, np.uint8)
        for value in NAMES:
            corner = [int(generator.integers(0, n - 9)) for n in shape]
            label[tuple(slice(place, place + 9) for place in corner)] = value
        assert server.save_label(name, "x.bin", label.tobytes(order="F"), names=NAMES).ok
    before = server.json("/model/info/deepgrow3d")
    train(server, max_epochs=1, steps_per_epoch=8, learning_rate=0.01, site_share=1.0)
    done = ended(server)
    assert done["status"] == "DONE", done
    assert not done["decision"]["is_published"]
    assert done["message"].startswith("Not published: ")
    assert done["version"] is None
    assert server.json("/model/info/deepgrow3d")["checksum"] == before["checksum"]
    assert server.json("/model/versions/deepgrow3d") == {"served": None, "versions": []}
    launcher.end_all()


def test_the_versions_of_a_label_over_http(server: Server) -> None:
    name = IMAGES[0]
    content = (HIPPOCAMPI / "labels" / f"{name}.nii.gz").read_bytes()
    params = {"client_id": "bert", "label_info": [{"name": NAMES[value], "idx": value} for value in NAMES]}

    def save(**more: Any) -> Any:
        files = {"label": ("x.nii.gz", content), "params": (None, json.dumps({**params, **more}))}
        return server.request("PUT", "/datastore/label", params={"image": name}, files=files)

    saved = save().json()
    assert saved["version"] == 2
    assert "version 1" in saved["notice"]
    assert save().json()["notice"] is None
    outdated = save(client_id="anna", based_on=1)
    assert outdated.status_code == 409
    assert "saved by 'bert'" in outdated.json()["detail"]
    assert save(client_id="anna", based_on=3).json()["version"] == 4
    versions = server.json(f"/datastore/label/versions?label={name}")
    assert [version["client_id"] for version in versions] == ["", "bert", "bert", "anna"]
    first = server.request("GET", f"/datastore/label/version?label={name}&version=1")
    np.testing.assert_array_equal(voxels_of(first.content), voxels_of(content))


def test_what_to_label_next_and_where_to_click(launcher: Launcher, studies: Path) -> None:
    server = serve(launcher, studies)
    params = {"foreground": [CENTRE], "background": [], "label": "x"}
    answer = server.infer(params, image=IMAGES[0], output="json").json()
    suggestion = answer["suggestion"]
    assert len(suggestion["index"]) == 3
    assert 0 < suggestion["doubt"] <= 1

    def next_sample() -> str:
        return str(server.request("POST", "/activelearning/uncertain", json={}).json()["id"])

    handed_out = [next_sample()]
    deadline = time.monotonic() + END_S
    while len(scores := list((studies / ".deepgrow3d" / "doubts").glob("*.json"))) != 1 or len(
        json.loads(scores[0].read_text())
    ) != len(IMAGES):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    known = {image: score for image, (_, score) in json.loads(scores[0].read_text()).items()}
    handed_out += [next_sample() for _ in IMAGES[1:]]
    assert sorted(handed_out) == IMAGES
    doubts = [known[image] for image in handed_out[1:]]  # of the first one nothing was known
    assert doubts == sorted(doubts, reverse=True)
    assert all(0 <= doubt <= 1 for doubt in known.values())
    launcher.end_all()


def test_pre_annotation_from_prompts_and_from_an_earlier_label(server: Server, launcher: Launcher) -> None:
    order = {"images": "all", "seeds_from": "final", "label_tag": "drawn"}
    assert server.request("POST", "/batch/infer/deepgrow3d", json=order).ok
    deadline = time.monotonic() + END_S
    while (state := server.json("/batch/infer/"))["status"] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert state["status"] == "DONE"
    assert {name: one["status"] for name, one in state["images"].items()} == dict.fromkeys(IMAGES, "done")
    assert state["images"][IMAGES[0]]["structures"] == list(NAMES.values())
    drawn = voxels_of(server.request("GET", f"/datastore/label?label={IMAGES[0]}&tag=drawn").content)
    assert set(np.unique(drawn)) <= {0, 1, 2}
    assert drawn.any()
    assert server.json("/datastore/")["label_tags"] == {"drawn": 4, "final": 4}

    prompts = {IMAGES[0]: {"x": {"foreground": [CENTRE]}}, IMAGES[1]: {"x": {"foreground": [[900, 0, 0]]}}}
    (launcher.folder / "prompts.json").write_text(json.dumps(prompts))
    done = launcher.deepgrow3d("batch", server.url, "--prompts", "prompts.json", "--tag", "second")
    assert done.returncode == 1
    assert f"{IMAGES[0]}: done: x" in done.stdout
    assert f"{IMAGES[1]}: failed: Click (900, 0, 0) lies outside" in done.stdout
    assert "1 of 2 images" in done.stderr
    state = server.json("/batch/infer/")
    assert [one["status"] for one in state["images"].values()] == ["done", "failed"]
    np.testing.assert_array_equal(
        voxels_of(server.request("GET", f"/datastore/label?label={IMAGES[0]}&tag=second").content) > 0,
        server.mask(IMAGES[0], [CENTRE]) > 0,
    )
    assert nifti(drawn, np.eye(4))


def test_the_commands_of_a_running_server(server: Server, launcher: Launcher) -> None:
    done = launcher.deepgrow3d("retrain", server.url, "--epochs", "1", "--steps", "2", "--force")
    assert done.returncode == 0, done.stderr
    assert "Published" in done.stdout
    model = ["--checkpoint", str(launcher.folder / "model" / "small.safetensors")]
    listed = launcher.deepgrow3d("versions", *model)
    assert "training" in listed.stdout
    assert "served" in listed.stdout
    back = launcher.deepgrow3d("rollback", *model)
    assert "is version 1 again" in back.stdout
    assert server.json("/model/versions/deepgrow3d")["served"] == 1
    server.mask(IMAGES[0], [CENTRE])
    nothing = launcher.deepgrow3d("retrain", server.url, "--stop")
    assert nothing.returncode == 1
    assert "No training is running" in nothing.stderr
