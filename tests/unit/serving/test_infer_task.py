import base64
import dataclasses
import gzip
import io
import json
import logging
import shutil
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.engine_choice import EngineChoice
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.predictor_pool import PredictorPool
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.click_memory import ClickMemory
from deepgrow3d_app.serving.compact_answer import CompactAnswer, with_params
from deepgrow3d_app.serving.incoming import Incoming
from deepgrow3d_app.serving.infer_request import InferRequest
from deepgrow3d_app.serving.infer_task import DeepGrowInferTask
from deepgrow3d_app.serving.routes.infer import _answer
from deepgrow3d_app.serving.served_model import ServedModel
from deepgrow3d_app.serving.uploads import Upload
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import read_volume, write_mask

REQUEST = InferRequest.from_params({"foreground": [[4, 4, 4]], "background": []})


@pytest.fixture
def image(tmp_path):
    write_mask(np.arange(512).reshape(8, 8, 8).astype(np.uint8), np.eye(4), tmp_path / "image.nii")
    return tmp_path / "image.nii"


def task_in(tmp_path):
    """A server's task as after a start: nothing in memory but what lies in the folder."""
    return DeepGrowInferTask(
        ServedModel(tmp_path / "deepgrow3d.safetensors", EngineChoice("torch", tmp_path)),
        VolumeCache(1 << 20),
        ClickMemory(1 << 20),
        ClickLog(tmp_path / "clicks"),
    )


@pytest.fixture
def task(tmp_path):
    torch.manual_seed(0)
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16))
    Checkpoint(spec, weights_of(build_network(spec))).save(tmp_path / "deepgrow3d.safetensors")
    return task_in(tmp_path)


def kept_bytes(task):
    return task._volumes.n_bytes, task._memory.n_bytes


def test_an_image_that_may_be_clicked_again_is_kept_with_its_mask(task, image):
    task.answer(REQUEST, image)
    assert min(kept_bytes(task)) > 0


def test_an_image_sent_for_one_answer_leaves_nothing_in_memory(task, image):
    sent = task.answer(REQUEST, image, volume=read_volume(image))
    assert kept_bytes(task) == (0, 0)
    assert sent.content == task.answer(REQUEST, image).content


@pytest.mark.parametrize("with_label", [False, True])
def test_an_uploaded_image_leaves_nothing_in_memory(task, image, with_label):
    served: Any = SimpleNamespace(volumes=task._volumes, incoming=Incoming(None))
    uploads = {"file": Upload("image.nii", io.BytesIO(image.read_bytes()))}
    if with_label:
        uploads["label"] = Upload("label.nii", io.BytesIO(image.read_bytes()))
    assert _answer(served, task, REQUEST, "", "", uploads, "file").extension == ".nii"
    assert kept_bytes(task) == (0, 0)


def request(*foreground, background=()):
    clicks = {"foreground": [list(index) for index in foreground], "background": [list(index) for index in background]}
    return InferRequest.from_params({**clicks, "result_extension": ".nii"})


STEPS = [
    request((4, 4, 4)),
    request((4, 4, 4), (1, 6, 2)),
    request((4, 4, 4), (1, 6, 2), background=[(7, 7, 7)]),
    request((4, 4, 4), (1, 6, 2), (2, 2, 6), background=[(7, 7, 7)]),
]


def test_undo_gives_exactly_the_mask_from_before(task, image):
    masks = [task.answer(step, image).content for step in STEPS]
    assert len(set(masks)) > 1
    for step, mask in zip(STEPS[::-1], masks[::-1], strict=True):
        again = task.answer(step, image)
        assert again.content == mask
        assert again.params["device"] == "memory"


def test_a_restart_changes_no_mask(task, image, tmp_path):
    masks = [task.answer(step, image).content for step in STEPS]
    for place in (3, 1, 2, 0):
        assert task_in(tmp_path).answer(STEPS[place], image).content == masks[place]


def test_a_click_after_a_restart_is_answered_as_without_it(task, image, tmp_path):
    for step in STEPS[:3]:
        task.answer(step, image)
    after_restart = task_in(tmp_path).answer(STEPS[3], image).content
    assert task.answer(STEPS[3], image).content == after_restart


def test_two_servers_answer_as_one_does(task, image, tmp_path):
    masks = [task.answer(step, image).content for step in STEPS]
    assert len(set(masks)) == len(masks)
    shutil.rmtree(tmp_path / "clicks")
    servers = [task_in(tmp_path), task_in(tmp_path)]
    for step, server, mask in zip(STEPS, servers * 2, masks, strict=True):
        assert server.answer(step, image).content == mask
    for server in servers:
        assert [server.answer(step, image).content for step in STEPS] == masks


def test_of_two_servers_that_answer_the_same_clicks_at_once_both_give_the_mask_of_the_first(
    task, image, tmp_path, monkeypatch
):
    other = task_in(tmp_path)
    earlier = request((1, 6, 2))
    task.answer(STEPS[0], image)
    log_of_task = task._log
    before = log_of_task.history

    def answered_meanwhile(subject):
        history = before(subject)
        monkeypatch.setattr(log_of_task, "history", before)
        other.answer(earlier, image)
        firsts.append(other.answer(STEPS[1], image).content)  # starts from a click that ``history`` does not have
        return history

    firsts: list[bytes] = []
    monkeypatch.setattr(log_of_task, "history", answered_meanwhile)
    assert task.answer(STEPS[1], image).content == firsts[0]
    assert task.answer(STEPS[1], image).content == task_in(tmp_path).answer(STEPS[1], image).content == firsts[0]


def test_who_signed_in_by_another_name_starts_from_nothing_although_the_viewers_call_themselves_alike(task, image):
    anna, bert = (
        [dataclasses.replace(step, client="3D Slicer", annotator=name) for step in STEPS] for name in ("anna", "bert")
    )
    for step in anna[:3]:
        task.answer(step, image)
    at_once = task.answer(bert[3], image).content
    assert at_once == task.answer(dataclasses.replace(STEPS[3], client="somebody else"), image).content
    assert task.answer(anna[3], image).content != at_once


def test_a_line_break_in_a_name_begins_no_line_of_the_log(task, image, caplog):
    forged = "liver\n2026-01-01 ERROR the disk is full"
    with caplog.at_level(logging.INFO):
        task.answer(dataclasses.replace(REQUEST, label=forged), image)
    assert any(repr(forged) in message for message in caplog.messages)
    assert not any("\n" in message for message in caplog.messages)


def test_masks_that_were_forgotten_are_computed_again(task, image):
    masks = [task.answer(step, image).content for step in STEPS]
    task._memory = ClickMemory(0)
    assert [task.answer(step, image).content for step in STEPS] == masks


def test_a_compact_answer_is_the_same_mask(task, image):
    expected = read_mask_of(task.answer(STEPS[1], image).content)
    answer = task.answer(STEPS[1], image, form="compact")
    a = json.loads(with_params(answer.content, answer.params))
    assert CompactAnswer.model_validate(a).params["label_names"] == {"foreground": 1}
    bits = np.unpackbits(np.frombuffer(gzip.decompress(base64.b64decode(a["bits"])), np.uint8))
    part = bits[: np.prod(a["extents"])].reshape(a["extents"])
    mask = np.zeros(a["shape"], np.uint8)
    mask[tuple(slice(s, s + n) for s, n in zip(a["start"], a["extents"], strict=True))] = part
    np.testing.assert_array_equal(mask, expected)


def read_mask_of(content):
    return np.asarray(nib.Nifti1Image.from_bytes(content).dataobj)


def test_clicks_reach_the_network_in_the_order_that_they_were_sent_and_it_is_told_which_is_new(
    task, image, tmp_path, monkeypatch
):
    """The first foreground click means the whole structure; those after it mean what was missed."""
    first, second, *more = (4, 4, 4), (1, 6, 2), (0, 0, 6), (7, 7, 7)
    steps = [request(first), request(first, second), request(first, second, *more)]
    seen = []
    predict = PredictorPool.predict

    def spied(self, volume, clicks, previous=None, latest=()):
        seen.append(([click.index for click in clicks], {click.index for click in latest}))
        return predict(self, volume, clicks, previous, latest)

    monkeypatch.setattr(PredictorPool, "predict", spied)
    for step in steps:
        task.answer(step, image)
    answered = list(seen)
    assert [clicks for clicks, _ in answered] == [[click.index for click in step.clicks] for step in steps]
    assert [latest for _, latest in answered] == [{first}, {second}, set(more)]
    restarted = task_in(tmp_path)
    seen.clear()
    restarted.answer(steps[-1], image)
    assert seen == answered
