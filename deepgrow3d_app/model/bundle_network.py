"""Our networks written as a MONAI configuration: whoever has MONAI can build them without this package."""

from __future__ import annotations

from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from deepgrow3d_app.model.network import HEAD_CHANNELS, CompactUNet
from deepgrow3d_app.model.spec import ModelSpec

NETWORK_ID = "network_def"
"""The name that MONAI looks a bundle's network up by."""


def network_definition(spec: ModelSpec) -> dict[str, Any]:
    """Items of a bundle's configuration that define ``NETWORK_ID``: the network of ``spec`` without weights."""
    if spec.network == "basic_unet":
        return {
            NETWORK_ID: {
                "_target_": "BasicUNet",
                "spatial_dims": 3,
                "in_channels": spec.input_channels,
                "out_channels": 1,
                "features": list(spec.channels),
            }
        }
    levels = len(spec.channels)
    return {
        "trunk": {
            "_target_": "DynUNet",
            "spatial_dims": 3,
            "in_channels": spec.input_channels,
            "out_channels": HEAD_CHANNELS,
            "kernel_size": [3] * levels,
            "strides": [2] * levels,
            "upsample_kernel_size": [2] * (levels - 1),
            "filters": list(spec.channels),
            "norm_name": ["INSTANCE", {"affine": True}],
            "res_block": True,
        },
        "upsample": {"_target_": "torch.nn.Upsample", "scale_factor": 2, "mode": "trilinear"},
        "features_beside_inputs": {
            "_target_": "monai.networks.layers.SkipConnection",
            "submodule": "$torch.nn.Sequential(@trunk, @upsample)",
        },
        "head": [
            {
                "_target_": "torch.nn.Conv3d",
                "in_channels": HEAD_CHANNELS + spec.input_channels,
                "out_channels": HEAD_CHANNELS,
                "kernel_size": 3,
                "padding": 1,
            },
            {"_target_": "torch.nn.LeakyReLU", "negative_slope": 0.01},
            {"_target_": "torch.nn.Conv3d", "in_channels": HEAD_CHANNELS, "out_channels": 1, "kernel_size": 1},
        ],
        NETWORK_ID: "$torch.nn.Sequential(@features_beside_inputs, *@head)",
    }


def defined_network(definition: dict[str, Any], network: nn.Module) -> nn.Module:
    """The network that ``definition`` defines, with the weights of ``network``; in evaluation mode.

    Args:
        definition: of the same specification as ``network``, see :func:`network_definition`.
        network: as ``model.network.build_network`` makes it.
    """
    defined: nn.Module = ConfigParser(definition).get_parsed_content(NETWORK_ID)
    defined.load_state_dict(_weights_of_definition(network))
    return defined.eval()


def _weights_of_definition(network: nn.Module) -> dict[str, Tensor]:
    """All weights of ``network`` by the names that they have in its definition."""
    if not isinstance(network, CompactUNet):
        return network.state_dict()
    weights = {f"0.submodule.0.{name}": tensor for name, tensor in network.trunk.state_dict().items()}
    # In the definition the activation takes a place, as in the head, but the head's parts follow the trunk's.
    weights |= {
        f"{int(number) + 1}.{parameter}": tensor
        for name, tensor in network.head.state_dict().items()
        for number, _, parameter in [name.partition(".")]
    }
    # MONAI's skip connection puts the inputs before the features, our network after them.
    features, inputs = weights["1.weight"].split([HEAD_CHANNELS, weights["1.weight"].shape[1] - HEAD_CHANNELS], dim=1)
    return weights | {"1.weight": torch.cat((inputs, features), dim=1)}
