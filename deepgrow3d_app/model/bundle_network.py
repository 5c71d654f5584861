"""Our networks written as a MONAI configuration: whoever has MONAI can build them without this package."""

from __future__ import annotations

from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from deepgrow3d_app.model.network import HEAD_CHANNELS, CompactUNet, JoinedNetworks
from deepgrow3d_app.model.spec import ModelSpec

NETWORK_ID = "network_def"
"""The name that MONAI looks a bundle's network up by."""

JOINED = (
    "$type('MeanOfNetworks', (torch.nn.ModuleList,), "
    "{'__module__': 'bundle', 'forward': lambda self, inputs: "
    "torch.stack([network(inputs) for network in self]).mean(dim=0)})"
)
"""What :class:`~deepgrow3d_app.model.network.JoinedNetworks` is, in an expression: MONAI and torch have none."""

MIRRORED = (
    "$type('MirroredNetwork', (torch.nn.Sequential,), "
    "{'__module__': 'bundle', 'forward': lambda self, inputs: "
    "(torch.nn.Sequential.forward(self, inputs) + torch.nn.Sequential.forward(self, inputs.flip(2)).flip(2)) / 2})"
)
"""A network whose answers for a patch and for its mirror image are averaged."""


def network_definition(spec: ModelSpec) -> dict[str, Any]:
    """Items of a bundle's configuration that define ``NETWORK_ID``: the network of ``spec`` without weights."""
    if spec.networks == 1:
        return _definition_of_one(spec, NETWORK_ID, "")
    items: dict[str, Any] = {}
    names = [f"network_{number}" for number in range(spec.networks)]
    for name in names:
        items |= _definition_of_one(spec, name, f"{name}_")
    return items | {
        "mean_of_networks": JOINED,
        NETWORK_ID: f"$@mean_of_networks([{', '.join(f'@{name}' for name in names)}])",
    }


def _definition_of_one(spec: ModelSpec, name: str, prefix: str) -> dict[str, Any]:
    """The items that define one network as ``name``; those that it is made of have names that begin with ``prefix``."""
    if spec.network == "basic_unet":
        return {
            name: {
                "_target_": "BasicUNet",
                "spatial_dims": 3,
                "in_channels": spec.input_channels,
                "out_channels": 1,
                "features": list(spec.channels),
            }
        }
    levels = len(spec.channels)
    sequence = f"@{prefix}mirrored_network" if spec.mirrored else "torch.nn.Sequential"
    return {
        **({f"{prefix}mirrored_network": MIRRORED} if spec.mirrored else {}),
        f"{prefix}trunk": {
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
        f"{prefix}upsample": {"_target_": "torch.nn.Upsample", "scale_factor": 2, "mode": "trilinear"},
        f"{prefix}features_beside_inputs": {
            "_target_": "monai.networks.layers.SkipConnection",
            "submodule": f"$torch.nn.Sequential(@{prefix}trunk, @{prefix}upsample)",
        },
        f"{prefix}head": [
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
        name: f"${sequence}(@{prefix}features_beside_inputs, *@{prefix}head)",
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
    if isinstance(network, JoinedNetworks):
        return {
            f"{number}.{name}": tensor
            for number, one in enumerate(network)
            for name, tensor in _weights_of_definition(one).items()
        }
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
