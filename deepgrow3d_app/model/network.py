"""The two architectures, both of MONAI's building blocks, and several networks that answer as one."""

from __future__ import annotations

import torch
from monai.networks.nets import BasicUNet, DynUNet
from torch import Tensor, nn
from torch.nn import functional

from deepgrow3d_app.model.instance_norm import NORM_NAME
from deepgrow3d_app.model.spec import ModelSpec

HEAD_CHANNELS = 8


def build_network(spec: ModelSpec) -> nn.Module:
    """The network of ``spec``, randomly initialised.

    Its forward pass takes (batch, ``spec.input_channels``, i, j, k) and gives logits
    (batch, 1, i, j, k) on the same grid.
    """
    networks = [_build_one(spec) for _ in range(spec.networks)]
    return networks[0] if len(networks) == 1 else JoinedNetworks(networks)


def _build_one(spec: ModelSpec) -> nn.Module:
    if spec.network == "basic_unet":
        return BasicUNet(
            spatial_dims=3,
            in_channels=spec.input_channels,
            out_channels=1,
            features=spec.channels,
            norm=(NORM_NAME, {"affine": True}),
        )
    return CompactUNet(spec.input_channels, spec.channels, spec.mirrored)


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """``network`` moved to ``device``, with channels last: the layout that 3-D convolutions are fastest in."""
    return network.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


class JoinedNetworks(nn.ModuleList):
    """Networks that answer together: the mean of their logits counts.

    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles", NIPS 2017.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (batch, 1, i, j, k) for ``inputs`` (batch, channels, i, j, k)."""
        return torch.stack([network(inputs) for network in self]).mean(dim=0)


class CompactUNet(nn.Module):
    """A residual U-Net that works at half resolution and draws the border at full resolution.

    Nearly all arithmetic of a 3-D U-Net is spent on its finest level. Here a residual U-Net
    (nnU-Net's residual encoder, as MONAI's ``DynUNet``) begins with a stride of 2, and a head of two
    small convolutions sees its upsampled features beside the full-resolution inputs, so that the
    border follows the image and not the coarse grid.

    Args:
        input_channels: number of input maps.
        channels: features of the levels, from half resolution downwards.
        is_mirrored: whether, in evaluation mode, the mean of the logits of a patch and of its mirror image counts
            (Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", NIPS 2012).
    """

    def __init__(self, input_channels: int, channels: tuple[int, ...], is_mirrored: bool = False) -> None:
        super().__init__()
        self.is_mirrored = is_mirrored
        levels = len(channels)
        self.trunk = DynUNet(
            spatial_dims=3,
            in_channels=input_channels,
            out_channels=HEAD_CHANNELS,
            kernel_size=[3] * levels,
            strides=[2] * levels,
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(channels),
            norm_name=(NORM_NAME, {"affine": True}),
            res_block=True,
        )
        self.head = nn.Sequential(
            nn.Conv3d(HEAD_CHANNELS + input_channels, HEAD_CHANNELS, kernel_size=3, padding=1),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv3d(HEAD_CHANNELS, 1, kernel_size=1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (batch, 1, i, j, k) for ``inputs`` (batch, channels, i, j, k); a mirror image is one along i."""
        if self.training or not self.is_mirrored:
            return self._logits(inputs)
        return (self._logits(inputs) + self._logits(inputs.flip(2)).flip(2)) / 2

    def _logits(self, inputs: Tensor) -> Tensor:
        features = functional.interpolate(self.trunk(inputs), scale_factor=2, mode="trilinear")
        logits: Tensor = self.head(torch.cat((features, inputs), dim=1))
        return logits
