import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.serving.click_memory import ClickMemory
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


@pytest.fixture
def task(tmp_path):
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16))
    Checkpoint(spec, weights_of(build_network(spec))).save(tmp_path / "deepgrow3d.safetensors")
    return DeepGrowInferTask(
        ServedModel(tmp_path / "deepgrow3d.safetensors"), VolumeCache(1 << 20), ClickMemory(1 << 20)
    )


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
    served: Any = SimpleNamespace(volumes=task._volumes)
    uploads = {"file": Upload("image.nii", io.BytesIO(image.read_bytes()))}
    if with_label:
        uploads["label"] = Upload("label.nii", io.BytesIO(image.read_bytes()))
    assert _answer(served, task, REQUEST, "", "", uploads).extension == ".nii"
    assert kept_bytes(task) == (0, 0)
