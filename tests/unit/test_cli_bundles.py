import dataclasses
import json

import pytest
import torch
from monai.networks.nets import BasicUNet
from typer.testing import CliRunner

from deepgrow3d_app.cli import app
from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.imported_weights import IMPORTED_SPEC
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec


def test_weights_are_imported_and_the_differences_told(tmp_path):
    network = BasicUNet(spatial_dims=3, in_channels=3, out_channels=1, features=IMPORTED_SPEC.channels)
    torch.save({"model": network.state_dict()}, tmp_path / "theirs.pt")
    output = tmp_path / "ours.safetensors"
    answer = CliRunner().invoke(app, ["import-weights", str(tmp_path / "theirs.pt"), "--output", str(output)])
    assert answer.exit_code == 0, answer.output
    assert "halves" in answer.output
    assert Checkpoint.load(output).spec == IMPORTED_SPEC


def test_an_output_that_is_no_checkpoint_is_refused_at_once(tmp_path):
    answer = CliRunner().invoke(app, ["import-weights", "absent.pt", "--output", str(tmp_path / "ours.pt")])
    assert isinstance(answer.exception, InvalidRequest)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["one"], "1 network that answers, for patch and mirror image"),
        (["one", "one"], "2 networks that answer together, for patch and mirror image"),
    ],
)
def test_networks_are_joined_with_their_mirror_images(tmp_path, names, said):
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(32, 32, 32))
    Checkpoint(spec, weights_of(build_network(spec))).save(tmp_path / "one.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in names]
    output = tmp_path / "out.safetensors"
    answer = CliRunner().invoke(app, ["join", *files, "--mirrored", "--output", str(output)])
    assert answer.exit_code == 0, answer.output
    assert said in " ".join(answer.output.split())
    assert Checkpoint.load(output).spec == dataclasses.replace(spec, networks=len(names), mirrored=True)


@pytest.mark.parametrize("network", ["compact_unet", "basic_unet"])
def test_a_checkpoint_is_exported(tmp_path, network):
    channels = (4, 8, 8) if network == "compact_unet" else (4, 4, 8, 8, 8, 4)
    spec = dataclasses.replace(ModelSpec(), network=network, channels=channels, patch_shape=(32, 32, 32))
    Checkpoint(spec, weights_of(build_network(spec))).save(tmp_path / "tiny.safetensors")
    answer = CliRunner().invoke(app, ["export", str(tmp_path / "tiny.safetensors"), "--output", str(tmp_path / "tiny")])
    assert answer.exit_code == 0, answer.output
    (tmp_path / "tiny" / "patches").mkdir()
    again = CliRunner().invoke(app, ["export", str(tmp_path / "tiny.safetensors"), "--output", str(tmp_path / "tiny")])
    assert "holds 'patches', which would be lost" in str(again.exception)
    assert (tmp_path / "tiny" / "patches").is_dir()
    about = json.loads((tmp_path / "tiny" / "configs" / "metadata.json").read_text())
    assert about["network_data_format"]["inputs"]["image"]["num_channels"] == spec.input_channels
