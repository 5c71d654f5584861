import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import save_file

from deepgrow3d_app.errors import CheckpointError
from deepgrow3d_app.model.checkpoint import EARLIER_KEY, Checkpoint, averaged, joined, lineage, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec

TINY = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    Checkpoint(TINY, weights_of(build_network(TINY)), {"command": "made for a test"}).save(path)
    return path


def test_a_spec_survives_json():
    assert ModelSpec.from_json(TINY.to_json()) == TINY
    assert ModelSpec.from_json(CLASSIC_SPEC.to_json()) == CLASSIC_SPEC


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"depth": 3}', '{"network": "resnet"}', '{"sigma_mm": "wide"}'])
def test_a_foreign_spec_is_refused(text):
    with pytest.raises(CheckpointError, match="not understood"):
        ModelSpec.from_json(text)


def test_a_saved_network_answers_as_before(saved):
    torch.manual_seed(0)
    before = build_network(TINY).half().float().eval()
    loaded = Checkpoint.load(saved)
    after = loaded.network().eval()
    inputs = torch.rand(1, TINY.input_channels, *TINY.patch_shape)
    with torch.inference_mode():
        torch.testing.assert_close(after(inputs), before(inputs))
    assert loaded.spec == TINY
    assert loaded.origin == {"command": "made for a test"}


def test_saving_leaves_one_file_and_replaces_the_old_one(saved):
    loaded = Checkpoint.load(saved)
    dataclasses.replace(loaded, origin={"command": "again"}).save(saved)
    assert [file.name for file in saved.parent.iterdir()] == ["tiny.safetensors"]
    assert Checkpoint.load(saved).origin == {"command": "again"}


def test_a_missing_checkpoint_names_the_file_and_the_remedy(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.safetensors.*deepgrow3d train"):
        Checkpoint.load(tmp_path / "absent.safetensors")


def test_a_truncated_checkpoint_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint.load(saved)


def test_garbage_and_foreign_weights_are_refused(tmp_path):
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\x80\x04garbage" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint.load(garbage)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(3)}, foreign)
    with pytest.raises(CheckpointError, match="another program"):
        Checkpoint.load(foreign)


def test_weights_of_another_network_or_not_finite_are_refused(saved):
    loaded = Checkpoint.load(saved)
    other = dataclasses.replace(loaded, spec=dataclasses.replace(TINY, channels=(8, 8, 8)))
    with pytest.raises(CheckpointError, match="do not fit"):
        other.network()
    name = next(iter(loaded.weights))
    with pytest.raises(CheckpointError, match="not finite"):
        dataclasses.replace(loaded, weights=loaded.weights | {name: loaded.weights[name] * torch.nan}).network()


def small(value, origin):
    weights = {name: torch.full_like(tensor, value) for name, tensor in weights_of(build_network(SMALL)).items()}
    return Checkpoint(SMALL, weights, origin)


SMALL = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16))
FIRST = {"command": "train a"}
SECOND = {"command": "train b", EARLIER_KEY: json.dumps([FIRST])}
THIRD = {"command": "train c", EARLIER_KEY: json.dumps([FIRST, {"command": "train b"}])}


def test_the_mean_of_networks_has_the_mean_of_their_weights_and_the_runs_of_all():
    mean = averaged([small(1.0, SECOND), small(4.0, THIRD)])
    assert all(bool((tensor == 2.5).all()) for tensor in mean.weights.values())
    assert [run["command"] for run in lineage(mean.origin)] == ["train a", "train b", "train c"]


def random(seed, origin):
    torch.manual_seed(seed)
    return Checkpoint(SMALL, weights_of(build_network(SMALL)), origin)


def test_networks_that_answer_together_answer_their_mean(tmp_path):
    one, other = random(1, SECOND), random(2, THIRD)
    joined([one, other]).save(tmp_path / "joined.safetensors")
    both = Checkpoint.load(tmp_path / "joined.safetensors")
    assert both.spec == dataclasses.replace(SMALL, networks=2)
    assert [run["command"] for run in lineage(both.origin)] == ["train a", "train b", "train c"]
    inputs = torch.randn(2, SMALL.input_channels, 16, 16, 16)
    with torch.inference_mode():
        mean = (one.network().eval()(inputs) + other.network().eval()(inputs)) / 2
        torch.testing.assert_close(both.network().eval()(inputs), mean, atol=2e-2, rtol=0)  # half precision on disk


def test_a_mirrored_network_answers_the_mean_of_a_patch_and_its_mirror_image():
    """And so the mirror image of a patch is answered with the mirror image of its mask."""
    one = random(3, SECOND)
    mirrored = joined([one], mirrored=True)
    assert mirrored.spec == dataclasses.replace(SMALL, mirrored=True)
    assert mirrored.weights.keys() == one.weights.keys()
    assert lineage(mirrored.origin) == lineage(SECOND)
    inputs = torch.randn(1, SMALL.input_channels, 16, 16, 16)
    with torch.inference_mode():
        network, plain = mirrored.network(), one.network()
        torch.testing.assert_close(network.train()(inputs), plain.train()(inputs))
        logits = network.eval()(inputs)
        mean = (plain.eval()(inputs) + plain(inputs.flip(2)).flip(2)) / 2
        torch.testing.assert_close(logits, mean)
        torch.testing.assert_close(network(inputs.flip(2)).flip(2), logits)
        assert not torch.allclose(logits, plain(inputs), atol=1e-3)


def test_several_mirrored_networks_answer_together():
    both = joined([random(1, {}), random(2, {})], mirrored=True)
    assert (both.spec.networks, both.spec.mirrored) == (2, True)
    inputs = torch.randn(1, SMALL.input_channels, 16, 16, 16)
    with torch.inference_mode():
        network = both.network().eval()
        torch.testing.assert_close(network(inputs.flip(2)).flip(2), network(inputs))


def test_the_classic_network_is_not_mirrored():
    with pytest.raises(ValueError, match="mirrored is True; choose it for a compact_unet only"):
        dataclasses.replace(CLASSIC_SPEC, mirrored=True)


def test_networks_that_are_fed_differently_cannot_answer_together():
    other = dataclasses.replace(SMALL, sigma_mm=9.0)
    with pytest.raises(CheckpointError, match="one specification"):
        joined([small(1.0, {}), Checkpoint(other, small(1.0, {}).weights)])
    with pytest.raises(CheckpointError, match="not finite"):
        joined([random(1, {}), small(math.nan, {})])
    with pytest.raises(CheckpointError, match="each of them single"):
        joined([joined([random(1, {}), random(2, {})])] * 2)
    with pytest.raises(CheckpointError, match="at least two"):
        joined([small(1.0, {})])


def test_networks_that_differ_in_kind_have_no_mean():
    other = dataclasses.replace(SMALL, sigma_mm=9.0)
    with pytest.raises(CheckpointError, match="different specifications"):
        averaged([small(1.0, {}), Checkpoint(other, small(1.0, {}).weights)])
    with pytest.raises(CheckpointError, match="at least two"):
        averaged([small(1.0, {})])


def test_the_lineage_of_the_first_checkpoints_is_understood():
    """Each held the whole origin of the one before, as text in text."""
    nested = {"command": "train b", "started_from": json.dumps({"command": "train a"})}
    nested = {"command": "train c", "started_from": json.dumps(nested)}
    assert [run["command"] for run in lineage(nested)] == ["train a", "train b", "train c"]
    assert lineage({}) == []
