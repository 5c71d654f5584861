"""The main job over HTTP: clicks in a study become its mask."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.metrics import Reference as Truth
from deepgrow3d_app.evaluation.protocol import annotate, perfect_user
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.volume.files import read_volume
from deepgrow3d_app.volume.volume import Mask, Volume
from tests.integration.conftest import ROOT
from tests.integration.trunk import IMAGE, assert_same_grid, deepest_voxel, leaky_client

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher, Server
    from tests.integration.phantom import Reference

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ORGANS = {
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
}


class ThroughClient:
    """The server as a segmentation method, called the way 3D Slicer calls it; every answer is checked."""

    record = MethodRecord("server", {})

    def __init__(self, client: Any, image: Path, label: str) -> None:
        self.client = client
        self.image = image
        self.label = label

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        params = {
            "label": self.label,
            "foreground": [list(click.index) for click in clicks if click.is_positive],
            "background": [list(click.index) for click in clicks if not click.is_positive],
            "result_extension": ".nrrd",
            "result_dtype": "uint8",
        }
        file, answer = self.client.infer("deepgrow3d", IMAGE, params)
        assert file.endswith(".nrrd")
        mask = assert_same_grid(Path(file), self.image)
        assert all(mask[click.index] == click.is_positive for click in clicks)
        assert answer["label_names"] == {self.label: 1}
        assert answer["latencies"]["total"] >= 0
        centroid = [round(float(indices.mean())) for indices in np.nonzero(mask)]
        assert answer["centroids"] == {self.label: [str(position) for position in centroid]}
        return mask


def test_info_says_what_viewers_read(server: Server) -> None:
    info = server.json("/info/")
    assert info["name"] == "DeepGrow 3D"
    assert {re.sub("[_ ]+", " ", label) for label in info["labels"]} >= ORGANS
    model = info["models"]["deepgrow3d"]
    assert (model["type"], model["dimension"]) == ("deepgrow", 3)
    assert set(model["labels"]) == set(info["labels"])
    assert set(info["strategies"]) == {"first", "random", "uncertain"}
    assert {"version", "description", "trainers", "scoring", "train_stats"} <= set(info)
    assert (info["datastore"]["total"], info["datastore"]["completed"]) == (4, 1)
    assert info["datastore"]["label_tags"] == {"final": 1}


@leaky_client
def test_the_client_finds_info_and_no_sign_in(client: Any, server: Server) -> None:
    assert client.info() == server.json("/info/")
    assert client.auth_enabled() is False


@leaky_client
@pytest.mark.parametrize("structure", ["liver", "spleen"])
def test_five_clicks_segment_an_organ(client: Any, server: Server, reference: Reference, structure: str) -> None:
    image = server.studies / "ct-trunk.nii.gz"
    method = ThroughClient(client, image, structure)
    volume, truth = read_volume(image), reference.structure(structure)
    answers = annotate(method, volume, Truth(truth, volume.spacing_mm), perfect_user(volume), 5)
    rounds = [round_ for round_, _ in answers]
    assert rounds[0].index == tuple(deepest_voxel(truth))
    assert rounds[-1].dice >= 0.6


def test_any_name_of_a_structure_will_do(server: Server, reference: Reference) -> None:
    params = {"label": "Läsion 7", "foreground": [deepest_voxel(reference.structure("liver"))], "background": []}
    assert server.infer(params, image=IMAGE, output="json").json()["label_names"] == {"Läsion 7": 1}


def test_a_background_click_is_obeyed(server: Server, reference: Reference) -> None:
    foreground = deepest_voxel(reference.structure("liver"))
    before = server.mask(IMAGE, [foreground])
    inside = np.argwhere(before)
    background = inside[np.linalg.norm(inside - foreground, axis=1).argmax()].tolist()
    after = server.mask(IMAGE, [foreground], [background])
    assert before[tuple(background)] == 1
    assert after[tuple(background)] == 0
    assert after[tuple(foreground)] == 1


def test_the_same_clicks_give_the_same_mask(server: Server, reference: Reference) -> None:
    clicks = [deepest_voxel(reference.structure(name)) for name in ("liver", "stomach")]
    first = server.mask(IMAGE, [clicks[0]], [clicks[1]], client_id="one")
    assert np.array_equal(server.mask(IMAGE, [clicks[0]], [clicks[1]], client_id="one"), first)
    # Nothing is remembered for the other one, so this mask is computed anew.
    assert np.array_equal(server.mask(IMAGE, [clicks[0]], [clicks[1]], client_id="other"), first)


def test_undo_gives_exactly_the_mask_from_before(server: Server, reference: Reference) -> None:
    liver, stomach = (deepest_voxel(reference.structure(name)) for name in ("liver", "stomach"))
    spleen = deepest_voxel(reference.structure("spleen"))
    first = server.mask(IMAGE, [liver], label="undo")
    second = server.mask(IMAGE, [liver], [stomach], label="undo")
    third = server.mask(IMAGE, [liver, spleen], [stomach], label="undo")
    assert not np.array_equal(third, second)
    assert np.array_equal(server.mask(IMAGE, [liver], [stomach], label="undo"), second)
    assert np.array_equal(server.mask(IMAGE, [liver], label="undo"), first)


def test_both_launchers_serve_the_same_thing(launcher: Launcher, server: Server, reference: Reference) -> None:
    shutil.copytree(ROOT / "apps", launcher.folder / "apps")
    shutil.copytree(ROOT / "sample-data" / "studies", launcher.folder / "studies")
    launcher.settings["DEEPGROW3D_ENGINE"] = "auto"
    other = launcher.start_server(launcher.folder / "studies", "apps/deepgrow3d")
    other.wait_until_openvino_computes()
    click = deepest_voxel(reference.structure("spleen"))
    assert other.json("/info/")["models"] == server.json("/info/")["models"]
    assert np.array_equal(other.mask(IMAGE, [click]), server.mask(IMAGE, [click]))


def test_what_a_click_took_is_in_the_answer_and_in_the_metrics(server: Server, reference: Reference) -> None:
    click = deepest_voxel(reference.structure("liver"))
    answer = server.infer(
        {"label": "timed", "foreground": [click], "background": []}, image=IMAGE, output="json"
    ).json()
    assert {"queue", "read", "pre", "infer", "invert", "write", "total"} <= set(answer["latencies"])
    assert answer["queue_position"] == 0
    assert "OpenVINO" in answer["device"]
    metrics = server.request("GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'deepgrow3d_click_seconds_bucket{le="0.5",stage="infer"}' in metrics.text
    assert re.search(r'deepgrow3d_clicks_total\{outcome="answered"\} [1-9]', metrics.text)


def test_a_newer_click_takes_the_place_of_those_that_wait(server: Server, reference: Reference) -> None:
    """Impatient hands click five times: what is answered last is all that anybody needs."""
    voxels = np.argwhere(reference.structure("liver"))[::2000][:8].tolist()
    asked = [voxels[: n + 1] for n in range(len(voxels))]

    def ask(points: list[list[int]]) -> requests.Response:
        params = {"label": "hasty", "client_id": "hasty", "foreground": points, "background": []}
        return server.infer(params, image=IMAGE, output="json")

    with ThreadPoolExecutor(len(asked)) as hands:
        answers = list(hands.map(ask, asked))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 409}
    assert statuses.count(200) >= 1
    assert all("newer click" in answer.json()["detail"] for answer in answers if answer.status_code == 409)
    assert ask(asked[-1]).status_code == 200


def test_after_a_kill_clicks_are_answered_as_before(launcher: Launcher, reference: Reference) -> None:
    shutil.copytree(ROOT / "sample-data" / "studies", launcher.folder / "studies")
    clicks = [deepest_voxel(reference.structure(name)) for name in ("liver", "spleen", "stomach")]
    launcher.settings["DEEPGROW3D_ENGINE"] = "auto"
    first = launcher.serve(launcher.folder / "studies")
    first.wait_until_openvino_computes()
    masks = [first.mask(IMAGE, clicks[: n + 1], label="killed") for n in range(2)]
    expected = first.mask(IMAGE, clicks, label="killed")
    first.kill()
    second = launcher.serve(launcher.folder / "studies")
    second.wait_until_openvino_computes()
    assert np.array_equal(second.mask(IMAGE, clicks, label="killed"), expected)
    assert np.array_equal(second.mask(IMAGE, clicks[:1], label="killed"), masks[0])
    assert np.array_equal(second.mask(IMAGE, clicks[:2], label="killed"), masks[1])
