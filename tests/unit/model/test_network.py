import torch

from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec


def test_the_compact_network_sees_the_previous_mask_and_barriers_and_keeps_the_grid():
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 24, 8))
    assert spec.input_channels == 6
    logits = build_network(spec)(torch.rand(2, 6, 16, 24, 8))
    assert logits.shape == (2, 1, 16, 24, 8)


def test_the_classic_network_is_the_basic_unet_of_deepgrow():
    assert CLASSIC_SPEC.input_channels == 3
    network = build_network(CLASSIC_SPEC)
    # MONAI Label's deepgrow_3d: BasicUNet, 3 in, 1 out, features 32-64-128-256-512-32.
    assert network.get_submodule("conv_0.conv_0.conv").weight.shape == (32, 3, 3, 3, 3)
    assert network.get_submodule("final_conv").weight.shape == (1, 32, 1, 1, 1)
    assert 22e6 < sum(p.numel() for p in network.parameters()) < 23e6
