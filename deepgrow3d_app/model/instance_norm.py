"""Instance normalisation that leaves features in the layout that a CPU convolves fastest in.

PyTorch's own lays the features of a patch out channel by channel, for the norm and again for its gradient, and the
next convolution has them copied back. `python -m benchmarks.network_step` prints what that costs a training step.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.layers.factories import Norm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NORM_NAME = "CHANNELS_LAST_INSTANCE"
"""What MONAI's networks are told to take :class:`InstanceNorm` by."""

FEW_VOXELS = 4096
"""Voxels of a patch up to which PyTorch's group norm was found slower than a few calls that do the same."""

SAMPLED_VOXELS = 64
"""Of a patch, whose mean is near enough to that of all for sums of squares to be about the deviation alone."""

SUMMED_TOGETHER = 100
"""Values in 16 bits that are added up before their sum is rounded to 16 bits: to have all of them in 32 bits first is
slow, and the roundings of hundreds of sums cancel out. A patch whose voxels these do not divide takes the slow way."""

PRECISIONS = (torch.float32, torch.bfloat16)


class InstanceNorm(nn.InstanceNorm3d):
    """As :class:`torch.nn.InstanceNorm3d`, computed otherwise where a CPU trains: equal but for rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """Features (n, channels, i, j, k), each channel of each patch with mean ``bias`` and deviation ``weight``."""
        if not self.training or not self._is_for_us(input):
            return super().forward(input)
        return _ChannelsLastNorm.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-any-return,no-untyped-call]

    def _is_for_us(self, features: Tensor) -> bool:
        is_known = features.device.type == "cpu" and features.dtype in PRECISIONS and features.ndim == 5
        return is_known and self.affine and not self.track_running_stats and features[0, 0].numel() > 1


def _instance_norm(dim: int) -> type[nn.Module]:
    """What MONAI asks for a norm of ``dim`` dimensions by."""
    return {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: InstanceNorm}[dim]


Norm.add_factory_callable(NORM_NAME, _instance_norm, "Instance normalisation in three dimensions, channels last.")


class _ChannelsLastNorm(torch.autograd.Function):
    """With x' for the normalised x: y = weight x' + bias, and with g for the gradient of y, that of x is
    weight / deviation (g - mean(g) - x' mean(g x')).

    Both are computed of x less the mean of a few of its voxels, which changes neither. Without that, a channel whose
    mean is several deviations from 0, of which trained networks have some, would lose digits to the mean.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        features = features.contiguous(memory_format=torch.channels_last_3d)
        x = _voxels_first(features)
        sample = x[:, :: max(1, x.shape[1] // SAMPLED_VOXELS)].mean(dim=1, dtype=torch.float32)
        shifted = torch.empty_like(features)
        torch.sub(x, _beside(sample, x), out=_voxels_first(shifted))
        of_size = _of_many_voxels if x.shape[1] > FEW_VOXELS else _of_few_voxels
        normalised, mean, over_deviation = of_size(shifted, weight, bias, eps)
        ctx.save_for_backward(shifted, weight, mean, over_deviation)
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        shifted, weight, mean, over_deviation = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last_3d)
        x, g = _voxels_first(shifted), _voxels_first(gradient)
        of_bias = _sum(g)
        of_weight = (_sum(x * g) - mean * of_bias) * over_deviation
        # Written as a line in g and x, so that each is read once.
        slope = weight * over_deviation
        of_x = -slope * of_weight * over_deviation / x.shape[1]
        constant = -slope * of_bias / x.shape[1] - of_x * mean
        for_features = torch.empty_like(shifted)
        result = _voxels_first(for_features)
        torch.addcmul(_beside(constant, x), x, _beside(of_x, x), out=result)
        result.addcmul_(g, _beside(slope, x))
        return for_features, of_weight.sum(0), of_bias.sum(0), None


def _of_many_voxels(features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised features, and of each channel mean and one over the deviation, float32 (n, channels).

    PyTorch's group norm keeps the layout, and with a group for each channel it is this norm. Weight and bias in
    float32 make it keep the moments in float32.
    """
    patches, channels = features.shape[:2]
    voxels = features[0, 0].numel()
    return torch.native_group_norm(features, weight, bias, patches, channels, voxels, channels, eps)


def _of_few_voxels(features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same, in float32 throughout."""
    x = _voxels_first(features).float()
    variance, mean = torch.var_mean(x, dim=1, correction=0)
    over_deviation = torch.rsqrt(variance + eps)
    slope = weight * over_deviation
    normalised = torch.empty_like(features)
    _voxels_first(normalised).copy_(torch.addcmul(_beside(bias - mean * slope, x), x, _beside(slope, x)))
    return normalised, mean, over_deviation


def _voxels_first(features: Tensor) -> Tensor:
    """A view of (n, channels, i, j, k), which are laid out with channels last, as (n, voxels, channels)."""
    return features.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """(n, channels) as (n, 1, channels), in the precision of ``x``."""
    return values.to(x.dtype)[:, None]


def _sum(x: Tensor) -> Tensor:
    """Over the voxels of (n, voxels, channels): float32 (n, channels)."""
    patches, voxels, channels = x.shape
    if x.dtype is torch.float32 or voxels % SUMMED_TOGETHER:
        return x.sum(1, dtype=torch.float32)
    together = x.view(patches, voxels // SUMMED_TOGETHER, SUMMED_TOGETHER, channels).sum(2)
    return together.sum(1, dtype=torch.float32)
