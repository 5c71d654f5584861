"""The loop that learns, over HTTP: labels in, training by the server, versions out."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.conftest import ROOT
from tests.integration.launcher import Launcher, Server
from tests.integration.phantom import nifti, voxels_of
from tests.integration.retraining import CENTRE, END_S, HIPPOCAMPI, IMAGES, NAMES, ended, serve, server, studies, train

__all__ = ["server", "studies"]

pytestmark = [pytest.mark.integration, pytest.mark.slow]


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
