"""The maps of many patches at once are those of each patch alone."""

import importlib.util
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepgrow3d_app.click import batched_maps
from deepgrow3d_app.click.batched_maps import minimax_by_doubling
from deepgrow3d_app.click.guidance import minimax_distance
from deepgrow3d_app.click.random_walk import conductances_of
from deepgrow3d_app.click.walk_equations import foreground_probability, one_iteration, one_iteration_anew
from deepgrow3d_app.model.inputs import batched_inputs, network_inputs
from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec

SHAPE = (16, 32, 16)
FULL_SPEC = ModelSpec(channels=(4, 8), patch_shape=SHAPE, walker_sigmas=(0.03, 0.2))

points = st.lists(st.tuples(st.floats(-3, 20), st.integers(0, 31), st.floats(-3, 20)), max_size=5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(points, points), min_size=1, max_size=3), st.integers(0, 2**31))
def test_inputs_of_a_batch_are_those_of_its_patches(clicks, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.nn.functional.avg_pool3d(torch.randn(len(clicks), *SHAPE, generator=generator), 3, 1, 1)
    previous = (torch.rand(len(clicks), *SHAPE, generator=generator) > 0.5).float()
    foreground, background = zip(*clicks, strict=True)
    together = batched_inputs(images, foreground, background, previous, FULL_SPEC)
    alone = torch.stack([
        network_inputs(image, inside, outside, mask, FULL_SPEC)
        for image, (inside, outside), mask in zip(images, clicks, previous, strict=True)
    ])  # fmt: skip
    exact, walkers = slice(0, 6), slice(6, 8)
    torch.testing.assert_close(together[:, exact], alone[:, exact], atol=1e-5, rtol=0)
    # Conjugate gradients go on until the last map of a batch is solved: the others are then solved better.
    torch.testing.assert_close(together[:, walkers], alone[:, walkers], atol=0.05, rtol=0)


def walk(iterate):
    """Potentials of three maps with other seeds each, by conjugate gradients whose steps are taken by ``iterate``."""
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(3, 9, 8, 7, generator=generator)
    seeds = torch.rand(images.shape, generator=generator) < 0.05
    values = (seeds & (torch.rand(images.shape, generator=generator) < 0.5)).float()
    return foreground_probability(conductances_of(images, 0.1), seeds, values, iterate)


def test_a_step_in_new_arrays_is_the_step_in_the_same_arrays():
    torch.testing.assert_close(walk(one_iteration_anew), walk(one_iteration), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler writes C++ where there is no GPU")
@pytest.mark.filterwarnings("ignore")
def test_a_step_in_new_arrays_can_be_compiled():
    torch.testing.assert_close(walk(torch.compile(one_iteration_anew)), walk(one_iteration), atol=1e-4, rtol=0)


@pytest.mark.parametrize("axes", [(7, 5, 6), (1, 2, 9), (8, 8, 8)])
def test_doubling_steps_reach_as_far_as_single_ones(axes):
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(4, *axes, generator=generator)
    seeds = torch.rand(4, *axes, generator=generator) < 0.02
    for rounds in (1, 6):
        expected = minimax_distance(cost, seeds, rounds)
        assert torch.equal(minimax_by_doubling(cost, seeds, rounds), expected)


def test_a_batch_of_the_classic_input_has_three_channels():
    spec = ModelSpec(
        network="basic_unet", channels=CLASSIC_SPEC.channels, patch_shape=SHAPE, previous_mask=False, barrier_scale=0
    )
    images = torch.zeros(2, *SHAPE)
    assert batched_inputs(images, [[(1, 2, 3)], []], [[], []], images, spec).shape == (2, 3, *SHAPE)


@pytest.mark.parametrize("fails_at", [0, 1, 3])
def test_where_kernels_cannot_be_compiled_the_walk_is_computed_call_by_call(monkeypatch, caplog, fails_at):
    """As on a machine with a GPU and without a C compiler. Triton may find out at any call."""
    calls = []

    def compiled(function):
        def call(*arguments):
            calls.append(arguments)
            if len(calls) > fails_at:
                raise RuntimeError("Failed to find C compiler.\nSet CC.")
            return function(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    batched_maps._iteration_on.cache_clear()
    iterate = batched_maps._iteration_on(torch.device("cuda"))
    torch.testing.assert_close(walk(iterate), walk(one_iteration), atol=1e-4, rtol=0)
    torch.testing.assert_close(walk(iterate), walk(one_iteration), atol=1e-4, rtol=0)
    assert len(calls) == fails_at + 1, "it is tried once"
    assert caplog.messages == [
        "Click maps are computed more slowly: their kernels cannot be compiled (Failed to find C compiler.)"
    ]
    batched_maps._iteration_on.cache_clear()
