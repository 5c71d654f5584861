"""What cannot be served, trained or drawn is refused with a reason, and leaves every file as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save as save_safetensors

from tests.integration.bad_input import assert_refused
from tests.integration.conftest import ROOT

if TYPE_CHECKING:
    from tests.integration.launcher import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("nothing_is_written")]


def other_program() -> bytes:
    return save_safetensors({"weight": np.zeros(3, np.float32)})


def shipped() -> bytes:
    return (ROOT / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors").read_bytes()


def weights_cut_off() -> bytes:
    return shipped()[:-1000]


def weights_with_nan() -> bytes:
    content = bytearray(shipped())
    content[-2:] = np.array([np.nan], np.float16).tobytes()
    return bytes(content)


BAD_WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "garbage": (lambda: b"garbage", "safetensors"),
    "empty": (lambda: b"", "safetensors"),
    "pickle": (lambda: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.", "safetensors"),
    "of another program": (other_program, "another program"),
    "cut off": (weights_cut_off, "safetensors"),
    "not finite": (weights_with_nan, "not finite"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_cannot_be_served(server: Server, case: str) -> None:
    content, says = BAD_WEIGHTS[case]
    response = server.request("PUT", "/model/deepgrow3d", files={"file": ("model.pt", content())})
    assert_refused(response, 400, "cannot be served", says, "Send a checkpoint of DeepGrow 3D")


def test_the_served_weights_cannot_be_deleted(server: Server) -> None:
    assert_refused(server.request("DELETE", "/model/deepgrow3d"), 400, "'deepgrow3d'", "PUT /model/deepgrow3d")


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"max_epochs": 0}, "'max_epochs' is 0"),
        ({"deepgrow3d": {"max_epochs": "many"}}, "'max_epochs' is 'many'"),
        ({"learning_rate": -1}, "'learning_rate' is -1"),
        ({"train_batch_size": 1e9}, "'train_batch_size'"),
    ],
)
def test_a_training_that_cannot_be_done(server: Server, order: dict[str, Any], says: str) -> None:
    assert_refused(server.request("POST", "/train/deepgrow3d", json=order), 400, says)


def test_a_training_that_is_not_there(server: Server) -> None:
    assert_refused(server.request("POST", "/train/other", json={}), 404, "'other'", "'deepgrow3d'")
    assert_refused(server.request("POST", "/train/deepgrow3d", json={"resume": True}), 404, "Start one")
    assert_refused(server.request("GET", "/train/"), 404, "No training")
    assert_refused(server.request("GET", "/train/?check_if_running=true"), 404, "No training")
    assert_refused(server.request("DELETE", "/train/"), 404, "No training")


@pytest.mark.parametrize(
    ("order", "status", "says"),
    [
        ({}, 400, "Say where to click"),
        ({"prompts": {"ct-trunk": {"liver": {"foreground": []}}}}, 400, "prompts.ct-trunk.liver.foreground"),
        ({"prompts": {"none": {"liver": {"foreground": [[1, 1, 1]]}}}}, 404, "There is no image 'none'"),
        ({"seeds_from": "no such tag"}, 404, "that has a label 'no such tag'"),
        ({"resume": True}, 404, "Start one"),
    ],
)
def test_a_pre_annotation_that_cannot_be_done(server: Server, order: dict[str, Any], status: int, says: str) -> None:
    assert_refused(server.request("POST", "/batch/infer/deepgrow3d", json=order), status, says)
    assert_refused(server.request("GET", "/batch/infer/"), 404, "No pre-annotation")
    assert_refused(server.request("DELETE", "/batch/infer/"), 404, "No pre-annotation")


def test_versions_that_are_not_there(server: Server) -> None:
    assert_refused(server.request("POST", "/model/rollback/deepgrow3d?version=9"), 404, "no version 9")
    assert_refused(server.request("GET", "/model/versions/other"), 404, "'deepgrow3d'")
    assert_refused(server.request("GET", "/datastore/label/version?label=ct-trunk&version=3"), 404, "no version 3")
    assert_refused(server.request("GET", "/datastore/label/versions?label=none"), 404, "There is no image 'none'")


def test_what_is_needed_is_named(server: Server) -> None:
    assert_refused(server.request("GET", "/datastore/image"), 422, "query.image", "required")
    assert_refused(
        server.request("DELETE", "/datastore/label", params={"id": "labelled"}), 422, "query.tag", "required"
    )
