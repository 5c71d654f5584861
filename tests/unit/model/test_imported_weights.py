import numpy as np
import pytest
import torch
from monai.apps.deepgrow.transforms import AddGuidanceSignald
from monai.networks.nets import BasicUNet

from deepgrow3d_app.click.guidance import guidance_maps
from deepgrow3d_app.errors import CheckpointError
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.imported_weights import IMPORTED_SPEC, import_weights

NAME = "conv_0.conv_0.conv.weight"


@pytest.fixture(scope="module")
def original():
    """MONAI Label's network with random weights that halves can hold, biases among them."""
    torch.manual_seed(0)
    network = BasicUNet(spatial_dims=3, in_channels=3, out_channels=1, features=(32, 64, 128, 256, 512, 32))
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return network.half().float().eval()


def write(folder, content):
    path = folder / "theirs.pt"
    torch.save(content, path)
    return path


def test_the_imported_network_computes_what_the_original_computes_on_slices_first(original, tmp_path):
    checkpoint = tmp_path / "ours.safetensors"
    import_weights(write(tmp_path, {"model": original.state_dict()}), "deepgrow3d import-weights").save(checkpoint)
    loaded = Checkpoint.load(checkpoint)
    patch = torch.randn(
        1, IMPORTED_SPEC.input_channels, 32, 48, 64
    )  # all extents differ, so that no axes can be mixed up
    with torch.inference_mode():
        ours = loaded.network().eval()(patch)
        theirs = original(torch.from_numpy(np.moveaxis(patch.numpy(), -1, 2)))  # as MONAI's create_dataset does it
        unpermuted = original(patch)
    torch.testing.assert_close(ours, torch.movedim(theirs, 2, -1), rtol=1e-4, atol=1e-4)
    assert (ours - unpermuted).abs().max() > 0.1  # the permutation is no formality
    assert loaded.spec == IMPORTED_SPEC
    assert loaded.origin["imported_from"] == "theirs.pt"


def test_the_spec_says_what_monai_label_feeds_its_network_with():
    assert IMPORTED_SPEC.input_channels == 3
    i, j, k = IMPORTED_SPEC.patch_shape
    assert (k, i, j) == (128, 192, 192)
    low, high = IMPORTED_SPEC.window_hu
    assert ((low + high) / 2, (high - low) / 2) == (208.0, 388.0)
    assert not IMPORTED_SPEC.compress_tails


def test_a_click_looks_nearly_as_it_does_in_monai():
    slices_first = AddGuidanceSignald()._get_signal(np.zeros((1, 20, 24, 28), np.float32), [[[8, 10, 12]], []])
    theirs = torch.movedim(torch.from_numpy(slices_first), 1, -1)
    ours = guidance_maps([(10, 12, 8)], [], (24, 28, 20), IMPORTED_SPEC.spacing_mm, IMPORTED_SPEC.sigma_mm)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_both_layouts_are_read_with_and_without_the_prefix_of_data_parallel(original, tmp_path, wrap, prefix):
    state = {prefix + name: tensor for name, tensor in original.state_dict().items()}
    checkpoint = import_weights(write(tmp_path, wrap(state)), "")
    assert checkpoint.weights.keys() == original.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: {name: state[name] for name in state if name != NAME}, f"misses '{NAME}'"),
        (lambda state: state | {"extra.bias": torch.zeros(3)}, r"unknown 'extra\.bias'"),
        (lambda state: state | {NAME: torch.zeros(32, 4, 3, 3, 3)}, rf"'{NAME}' has the shape \(32, 4, 3, 3, 3\), not"),
        (lambda state: state | {NAME: state[NAME].long()}, f"'{NAME}' has the type torch.int64"),
        (lambda state: state | {NAME: state[NAME] * torch.nan}, f"'{NAME}' has values that are not finite"),
        (lambda state: state | {NAME: state[NAME] + 1e5}, f"'{NAME}' has values that are not finite, or larger"),
        (lambda state: {}, "no weights at all"),
        (lambda state: [1, 2], "no state dictionary"),
        (lambda state: {"model": 1}, "no state dictionary"),
        (lambda state: {"epoch": 3, "weights": state}, "no state dictionary"),
    ],
)
def test_other_weights_are_refused_and_the_first_fault_is_named(original, tmp_path, change, told):
    with pytest.raises(CheckpointError, match=told):
        import_weights(write(tmp_path, change(original.state_dict())), "")


def test_pickled_objects_are_refused_and_not_run(original, tmp_path):
    with pytest.raises(CheckpointError, match="pickled objects"):
        import_weights(write(tmp_path, {"model": original}), "")


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x02garbage" * 100, b"PK\x03\x04" * 100])
def test_what_torch_did_not_write_is_refused(tmp_path, content):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"'other\.pt' is damaged, or not a file that torch\.save wrote"):
        import_weights(path, "")


def test_a_missing_or_truncated_file_is_refused(original, tmp_path):
    with pytest.raises(CheckpointError, match="no file"):
        import_weights(tmp_path / "absent.pt", "")
    path = write(tmp_path, original.state_dict())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged"):
        import_weights(path, "")
