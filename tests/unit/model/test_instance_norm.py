"""The instance norm that trains on a CPU, beside PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deepgrow3d_app.model.instance_norm import FEW_VOXELS, SUMMED_TOGETHER, InstanceNorm
from deepgrow3d_app.model.network import build_network, on_device
from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec

SHAPES = [(2, 3, 20, 20, 20), (1, 5, 17, 21, 13), (3, 4, 10, 10, 5), (2, 7, 1, 2, 3)]
"""Many and few voxels, those that can be summed in hundreds and others."""

CPU_LAYOUT = torch.channels_last_3d


def answers(norm: nn.Module, features: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Normalised features, and the gradients of features, weight and bias."""
    leaf = features.detach().clone().requires_grad_()
    normalised = norm(leaf)
    found = torch.autograd.grad(normalised, (leaf, *norm.parameters()), gradient.to(normalised.dtype))
    return normalised.detach(), *found


def both(
    shape: tuple[int, ...], dtype: torch.dtype, ratio: float = 0.3
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What ours gives in ``dtype`` and PyTorch's in float64, of features whose mean is ``ratio`` deviations.

    The gradient has a mean, too.
    """
    generator = torch.Generator().manual_seed(sum(shape))
    features = (3 * torch.randn(shape, generator=generator) + 3 * ratio).to(dtype)
    gradient = (torch.randn(shape, generator=generator) + 0.5).to(dtype)
    ours, exact = InstanceNorm(shape[1], affine=True), nn.InstanceNorm3d(shape[1], affine=True).double()
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
            exact.get_parameter(name).copy_(weight)
    found = answers(ours, features.to(memory_format=CPU_LAYOUT), gradient.to(memory_format=CPU_LAYOUT))
    return found, answers(exact, features.double(), gradient.double())


def test_the_shapes_are_of_all_kinds():
    voxels = [torch.Size(shape)[2:].numel() for shape in SHAPES]
    kinds = {(number > FEW_VOXELS, number % SUMMED_TOGETHER == 0) for number in voxels}
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", [0.3, 10.0, 100.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.03)])
def test_norm_and_gradients_are_those_of_pytorch(shape, dtype, tolerance, ratio):
    for found, expected in zip(*both(shape, dtype, ratio), strict=True):
        assert found.shape == expected.shape
        assert float((found.double() - expected).abs().max()) < tolerance * float(expected.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_channel_becomes_its_bias(shape, dtype):
    norm = InstanceNorm(shape[1], affine=True)
    nn.init.constant_(norm.bias, 0.25)
    assert bool((norm(torch.full(shape, 3.3, dtype=dtype)) == 0.25).all())


@pytest.mark.parametrize("shape", SHAPES[::2])
def test_features_stay_in_the_layout_of_channels_last(shape):
    (normalised, gradient, *_), _ = both(shape, torch.float32)
    assert normalised.is_contiguous(memory_format=CPU_LAYOUT)
    assert gradient.is_contiguous(memory_format=CPU_LAYOUT)


def test_without_training_it_is_pytorchs_own():
    features = torch.randn(1, 3, 5, 6, 7)
    ours, theirs = InstanceNorm(3, affine=True).eval(), nn.InstanceNorm3d(3, affine=True).eval()
    assert torch.equal(ours(features), theirs(features))


def test_what_it_is_not_made_for_is_pytorchs():
    assert torch.equal(InstanceNorm(3)(torch.ones(1, 3, 2, 2, 2)), torch.zeros(1, 3, 2, 2, 2))
    assert InstanceNorm(3, affine=True).double()(torch.rand(1, 3, 4, 4, 4).double()).dtype is torch.float64
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        InstanceNorm(3, affine=True)(torch.ones(1, 3, 1, 1, 1))
    counting = InstanceNorm(3, affine=True, track_running_stats=True)
    counting(torch.ones(1, 3, 2, 2, 2))
    assert counting.running_mean is not None
    assert bool((counting.running_mean > 0).all())


@pytest.mark.parametrize("spec", [ModelSpec(patch_shape=(32, 32, 32)), CLASSIC_SPEC])
def test_every_norm_of_a_network_is_ours(spec):
    norms = [module for module in build_network(spec).modules() if isinstance(module, nn.InstanceNorm3d)]
    assert norms
    assert all(type(norm) is InstanceNorm for norm in norms)


def test_a_training_step_of_the_network_is_that_of_pytorchs_norm(monkeypatch):
    spec = ModelSpec(patch_shape=(32, 32, 32), channels=(4, 6, 8))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, spec.input_channels, 32, 32, 32, generator=generator)

    def gradients() -> list[Tensor]:
        torch.manual_seed(1)
        network = on_device(build_network(spec), torch.device("cpu")).train()
        network(inputs.to(memory_format=CPU_LAYOUT)).square().mean().backward()
        return [weight.grad for weight in network.parameters() if weight.grad is not None]

    ours = gradients()
    monkeypatch.setattr(InstanceNorm, "forward", nn.InstanceNorm3d.forward)
    for found, expected in zip(ours, gradients(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
