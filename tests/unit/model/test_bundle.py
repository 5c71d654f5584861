"""The bundle is used as others use it: through ``monai.bundle`` alone."""

import dataclasses
import json
import zipfile

import nibabel
import numpy as np
import pytest
import torch
from monai import bundle
from monai.networks.nets import BasicUNet

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.bundle import export_bundle
from deepgrow3d_app.model.bundle_texts import channel_descriptions
from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec

PATCH = (32, 32, 48)
SPECS = {
    "compact": ModelSpec(channels=(4, 8, 8), patch_shape=PATCH),
    "with-walkers": ModelSpec(channels=(4, 8, 8), patch_shape=PATCH, walker_sigmas=(0.1, 0.3)),
    "mirrored": ModelSpec(channels=(4, 8, 8), patch_shape=PATCH, mirrored=True),
    "joined": ModelSpec(networks=2, channels=(4, 8, 8), patch_shape=PATCH),
    "joined-mirrored": ModelSpec(networks=2, channels=(4, 8, 8), patch_shape=PATCH, mirrored=True),
    "basic": dataclasses.replace(CLASSIC_SPEC, channels=(4, 4, 8, 8, 8, 4), patch_shape=PATCH),
}
pytestmark = [
    # MONAI says this of every configuration that it is told to run.
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    # MONAI's LoadImage, whatever it reads, where pydicom is installed without nvImageCodec.
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
    # Loading TorchScript is what these tests are about.
    pytest.mark.filterwarnings("ignore:`torch.jit.load` is:DeprecationWarning"),
]


@pytest.fixture(scope="module", params=SPECS)
def exported(request, tmp_path_factory):
    """A checkpoint, and the folder of its bundle."""
    spec = SPECS[request.param]
    torch.manual_seed(0)
    checkpoint = Checkpoint(spec, weights_of(build_network(spec)), {"command": "made for a test"})
    folder = tmp_path_factory.mktemp("bundles") / request.param
    export_bundle(checkpoint, folder)
    return checkpoint, folder


@pytest.fixture
def patch(exported):
    """An input of the network, and the logits that our own network gives for it."""
    checkpoint, _ = exported
    inputs = torch.randn(1, checkpoint.spec.input_channels, *PATCH)
    with torch.inference_mode():
        return inputs, checkpoint.network().eval()(inputs)


def test_it_has_the_files_of_a_bundle_and_nothing_beside_them(exported):
    _, folder = exported
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {
        "LICENSE",
        "configs/inference.json",
        "configs/metadata.json",
        "docs/README.md",
        "models/model.pt",
        "models/model.ts",
    }
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert not [other for other in folder.parent.iterdir() if other.name not in SPECS]


def test_monai_runs_it_and_gets_our_logits(exported, patch, tmp_path):
    _, folder = exported
    inputs, logits = patch
    affine = np.diag((2.0, 2.0, 2.0, 1.0))
    (tmp_path / "patches").mkdir()
    nibabel.save(
        nibabel.Nifti1Image(np.moveaxis(inputs[0].numpy(), 0, -1), affine), tmp_path / "patches" / "liver.nii.gz"
    )
    bundle.run(
        config_file=str(folder / "configs" / "inference.json"),
        bundle_root=str(folder),
        dataset_dir=str(tmp_path / "patches"),
        output_dir=str(tmp_path / "logits"),
        device="cpu",
    )
    answer = nibabel.load(tmp_path / "logits" / "liver_logits.nii.gz")
    assert isinstance(answer, nibabel.Nifti1Image)
    np.testing.assert_allclose(answer.get_fdata(), logits[0, 0].numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(answer.affine, affine)


def test_monai_loads_its_network_from_another_folder(exported, patch):
    _, folder = exported
    inputs, logits = patch
    network = bundle.load(folder.name, bundle_dir=folder.parent, workflow_type="inference", device="cpu")
    assert isinstance(network, torch.nn.Module)
    network.eval()
    with torch.inference_mode():
        torch.testing.assert_close(network(inputs), logits, rtol=0, atol=1e-4)


def test_monai_loads_its_torchscript_with_the_metadata(exported, patch):
    _, folder = exported
    inputs, logits = patch
    loaded = bundle.load(folder.name, bundle_dir=folder.parent, load_ts_module=True, device="cpu")
    assert isinstance(loaded, tuple)
    script, about, _ = loaded
    with torch.inference_mode():
        torch.testing.assert_close(script(inputs), logits, rtol=0, atol=1e-4)
    assert about == json.loads((folder / "configs" / "metadata.json").read_text())


def test_its_metadata_say_what_monai_asks_for(exported):
    checkpoint, folder = exported
    meta_file = str(folder / "configs" / "metadata.json")
    bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=meta_file,
        config_file=str(folder / "configs" / "inference.json"),
        device="cpu",
    )
    about = json.loads((folder / "configs" / "metadata.json").read_text())
    # MONAI's bundle specification. Its own check would download the schema.
    for key in ("schema", "version", "monai_version", "pytorch_version", "numpy_version"):
        assert isinstance(about[key], str)
    for key in ("task", "description", "authors", "copyright"):
        assert isinstance(about[key], str)
    assert about["required_packages_version"].keys() == {"nibabel"}
    tensors = about["network_data_format"]
    for tensor, channels in (
        (tensors["inputs"]["image"], checkpoint.spec.input_channels),
        (tensors["outputs"]["pred"], 1),
    ):
        assert tensor["type"] == "image"
        assert tensor["format"] in ("magnitude", "segmentation")
        assert tensor["modality"] == "CT, MR"
        assert tensor["num_channels"] == channels
        assert tensor["channel_def"].keys() == {str(number) for number in range(channels)}
        assert tensor["spatial_shape"] == list(PATCH)
        assert tensor["dtype"] == "float32"
        assert tensor["value_range"] == []
        assert tensor["is_patch_data"] is True
    assert ModelSpec.from_json(json.dumps(about["deepgrow3d"]["spec"])) == checkpoint.spec
    assert about["deepgrow3d"]["origin"] == checkpoint.origin


@pytest.mark.parametrize("spec", [*SPECS.values(), ModelSpec(), CLASSIC_SPEC, ModelSpec(barrier_scale=0.0)])
def test_each_input_channel_is_described(spec):
    assert len(channel_descriptions(spec)) == spec.input_channels


def test_the_description_gives_window_and_sigma():
    image, foreground, *_ = channel_descriptions(CLASSIC_SPEC)
    assert "-180 HU is -1 and 596 HU is +1, linear beyond" in image
    assert "sigma 2 mm at zoom 1 (2/2/0.666667 patch voxels)" in foreground


def test_the_weights_of_a_basic_unet_load_into_monais_own(tmp_path):
    spec = SPECS["basic"]
    export_bundle(Checkpoint(spec, weights_of(build_network(spec))), tmp_path / "basic")
    plain = BasicUNet(spatial_dims=3, in_channels=spec.input_channels, out_channels=1, features=spec.channels)
    plain.load_state_dict(torch.load(tmp_path / "basic" / "models" / "model.pt", weights_only=True))


def test_nothing_in_it_names_a_folder_of_this_machine(exported):
    _, folder = exported
    here = [str(parent).encode() for parent in (folder.parent, *_source_folders())]
    with zipfile.ZipFile(folder / "models" / "model.ts") as archive:
        contents = [archive.read(record) for record in archive.infolist()]
    contents += [file.read_bytes() for file in folder.rglob("*") if file.suffix in {".json", ".md"}]
    assert not [place for place in here for content in contents if place in content]


def test_a_bundle_is_replaced_and_anything_else_is_left_alone(exported, tmp_path):
    checkpoint, _ = exported
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidRequest, match="'mine' exists and is no MONAI bundle"):
        export_bundle(checkpoint, target)
    assert [file.name for file in target.iterdir()] == ["thesis.txt"]
    (target / "thesis.txt").unlink()
    export_bundle(checkpoint, target)
    export_bundle(dataclasses.replace(checkpoint, origin={"command": "again"}), target)
    assert "again" in (target / "docs" / "README.md").read_text()
    (target / "configs" / "train.json").write_text("{}")
    with pytest.raises(InvalidRequest, match=r"holds 'configs/train\.json', which would be lost"):
        export_bundle(checkpoint, target)
    assert (target / "configs" / "train.json").is_file()
    assert [folder.name for folder in tmp_path.iterdir()] == ["mine"]


def test_a_failed_export_leaves_nothing(exported, tmp_path, monkeypatch):
    checkpoint, _ = exported
    monkeypatch.setattr("deepgrow3d_app.model.bundle._licence", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_bundle(checkpoint, tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def _source_folders():
    import deepgrow3d_app

    return {source.rpartition("/")[0] for source in (torch.__file__, deepgrow3d_app.__file__)}
