import json
import logging
from pathlib import Path

import pytest
from safetensors.torch import save_file

from deepgrow3d_app.errors import CheckpointError
from deepgrow3d_app.model.checkpoint import SPEC_KEY, Checkpoint, weights_of
from deepgrow3d_app.model.engine_choice import EngineChoice
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.retraining.versions import VersionRecord, Versions, sha256_of
from deepgrow3d_app.serving import served_model
from deepgrow3d_app.serving.served_model import READ_TRIES, ServedModel

TORCH = EngineChoice("torch", Path("unused"))


def publish(path, label):
    """A small network whose specification carries ``label``, in the place of ``path``."""
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16), labels=(label,))
    Checkpoint(spec, weights_of(build_network(spec))).save(path)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "deepgrow3d.safetensors"
    publish(path, "liver")
    return path


def labels(model):
    return model.current().predictors.spec.labels


def test_there_is_no_model_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        ServedModel(tmp_path / "deepgrow3d.safetensors", TORCH)


def test_the_same_file_is_loaded_once(checkpoint):
    model = ServedModel(checkpoint, TORCH)
    assert model.current() is model.current()


def test_a_new_file_is_served_at_the_next_click(checkpoint):
    model = ServedModel(checkpoint, TORCH)
    before = model.current()
    publish(checkpoint, "spleen")
    assert labels(model) == ("spleen",)
    assert model.current().version != before.version


@pytest.mark.parametrize(
    "change",
    [
        {"channels": (4, 8)},
        {"patch_shape": (15, 15, 15)},
        {"patch_shape": "x"},
        {"window_hu": (0.0,)},
        {"labels": 7},
        {"labels": (7,)},
    ],
)
def test_a_specification_that_no_network_can_have_is_refused(checkpoint, change):
    loaded = Checkpoint.load(checkpoint)
    spec = json.dumps({**json.loads(loaded.spec.to_json()), **change})
    save_file(loaded.weights, checkpoint, {SPEC_KEY: spec})
    with pytest.raises(CheckpointError, match=r"'deepgrow3d\.safetensors'"):
        ServedModel(checkpoint, TORCH)


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_bad_file_leaves_the_old_model_serving_and_is_reported_once(checkpoint, content, caplog):
    model = ServedModel(checkpoint, TORCH)
    if content is None:
        checkpoint.unlink()
    else:
        checkpoint.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        assert labels(model) == ("liver",)
        assert labels(model) == ("liver",)
    assert len(caplog.records) == 1
    publish(checkpoint, "spleen")
    assert labels(model) == ("spleen",)


def test_a_publication_is_served_from_the_next_click_on_and_can_be_taken_back(checkpoint, tmp_path):
    model = ServedModel(checkpoint, TORCH)
    first = model.digest()
    publish(tmp_path / "candidate.safetensors", "spleen")
    version = model.publish(tmp_path / "candidate.safetensors", VersionRecord(made_by="upload"))
    assert (version.number, model.loaded.predictors.spec.labels) == (2, ("spleen",))
    assert model.loaded is model.current()  # nothing is left to be loaded by a click
    assert model.digest() == version.sha256 != first
    assert model.roll_back(None).number == 1
    assert (model.digest(), model.loaded.predictors.spec.labels) == (first, ("liver",))
    assert model.roll_back(2).number == 2
    assert model.loaded.predictors.spec.labels == ("spleen",)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_what_answers_no_click_is_not_published(checkpoint, tmp_path, content):
    model = ServedModel(checkpoint, TORCH)
    (tmp_path / "candidate.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError):
        model.publish(tmp_path / "candidate.safetensors", VersionRecord(made_by="upload"))
    assert labels(model) == ("liver",)
    assert model.versions.all() == []


def test_the_digest_is_that_of_what_answers_and_not_of_the_file_in_its_place(checkpoint):
    liver = sha256_of(checkpoint)
    model = ServedModel(checkpoint, TORCH)
    publish(checkpoint, "spleen")
    assert (model.loaded.predictors.spec.labels, model.digest()) == (("liver",), liver)
    checkpoint.write_bytes(b"garbage")
    assert (labels(model), model.digest()) == (("liver",), liver)
    publish(checkpoint, "spleen")
    assert (labels(model), model.digest()) == (("spleen",), sha256_of(checkpoint))
    checkpoint.unlink()
    assert model.digest() == model.loaded.digest != liver


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(checkpoint, monkeypatch):
    names = iter(["spleen"])

    def replaced_first(path):
        for name in names:
            publish(path, name)
        return sha256_of(path)

    monkeypatch.setattr(served_model, "sha256_of", replaced_first)
    model = ServedModel(checkpoint, TORCH)
    assert (model.loaded.predictors.spec.labels, model.digest()) == (("spleen",), sha256_of(checkpoint))
    assert model.current() is model.loaded


def test_a_file_that_is_replaced_all_the_while_is_not_served(checkpoint, monkeypatch):
    model = ServedModel(checkpoint, TORCH)

    def replaced(path):
        publish(path, "kidney")
        return sha256_of(path)

    monkeypatch.setattr(served_model, "sha256_of", replaced)
    with pytest.raises(CheckpointError, match=f"replaced {READ_TRIES} times while it was read"):
        ServedModel(checkpoint, TORCH)
    assert labels(model) == ("liver",)
    monkeypatch.undo()
    assert labels(model) == ("kidney",), "it is looked at again at the next click"


def test_what_takes_the_place_of_a_publication_at_once_is_served(checkpoint, tmp_path, monkeypatch):
    model = ServedModel(checkpoint, TORCH)
    publish(tmp_path / "candidate.safetensors", "spleen")
    put = Versions.publish

    def replaced(*arguments):
        version = put(*arguments)
        publish(checkpoint, "kidney")
        return version

    monkeypatch.setattr(Versions, "publish", replaced)
    version = model.publish(tmp_path / "candidate.safetensors", VersionRecord(made_by="upload"))
    assert (labels(model), model.digest()) == (("kidney",), sha256_of(checkpoint))
    assert version.sha256 == sha256_of(model.versions.file(version.number)) != model.digest()
