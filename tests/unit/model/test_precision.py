import pytest
import torch

from deepgrow3d_app.model import precision
from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.openvino_engine import OpenVinoEngine
from deepgrow3d_app.model.precision import convolution_seconds, cpu_prefers_bfloat16, reduced_precision
from deepgrow3d_app.model.spec import ModelSpec

CPU = torch.device("cpu")


@pytest.fixture
def try_anew():
    """Nothing is known of this CPU, before the test and after it."""
    cpu_prefers_bfloat16.cache_clear()
    yield
    cpu_prefers_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "expected"),
    [
        (0.020, 0.005, torch.bfloat16),  # tiles
        (0.020, 0.010, torch.bfloat16),  # dot products twice as wide
        (0.020, 0.019, None),  # a gain that is not worth its rounding
        (0.020, 0.040, None),  # dot products at half the rate
    ],
)
def test_the_faster_arithmetic_is_chosen(monkeypatch, try_anew, float32_s, bfloat16_s, expected):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "convolution_seconds", lambda: (float32_s, bfloat16_s))
    assert reduced_precision(CPU) is expected


def test_what_would_be_emulated_is_not_tried(monkeypatch, try_anew):
    def refuse():
        raise AssertionError("tried")

    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(precision, "convolution_seconds", refuse)
    assert reduced_precision(CPU) is None


def test_a_cpu_is_tried_once(monkeypatch, try_anew):
    seconds = iter([(2.0, 1.0)])
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "convolution_seconds", lambda: next(seconds))
    assert [reduced_precision(CPU) for _ in range(3)] == [torch.bfloat16] * 3


def test_a_trial_computes_in_both_and_leaves_the_random_generator_alone(monkeypatch):
    computed = []

    def convolve(features, kernel, padding):
        result = torch.nn.functional.conv3d(features, kernel, padding=padding)
        computed.append(result.dtype)
        return result

    monkeypatch.setattr(precision, "conv3d", convolve)
    before = torch.random.get_rng_state()
    assert min(convolution_seconds()) > 0
    assert set(computed[0::2]) == {torch.float32}
    assert set(computed[1::2]) == {torch.bfloat16}
    assert torch.equal(torch.random.get_rng_state(), before)


class Clock:
    """Stands for the module ``time``: a thread that waits lets the clock go on, and not its own time."""

    def __init__(self):
        self.computed_s = self.waited_s = 0.0

    def thread_time(self):
        return self.computed_s

    def perf_counter(self):
        return self.computed_s + self.waited_s


def test_a_trial_does_not_count_waiting_and_leaves_the_number_of_threads(monkeypatch):
    """On a busy machine it is at times bfloat16's turn that waits: it would have been thought the slower one."""
    clock = Clock()

    def convolve(features, kernel, padding):
        assert torch.get_num_threads() == 1
        in_bfloat16 = torch.is_autocast_enabled("cpu")
        clock.computed_s += 0.25 if in_bfloat16 else 1.0
        clock.waited_s += 8.0 if in_bfloat16 else 0.0

    monkeypatch.setattr(precision, "time", clock)
    monkeypatch.setattr(precision, "conv3d", convolve)
    threads = torch.get_num_threads()
    assert convolution_seconds() == (1.0, 0.25)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("bfloat16_s", "arithmetic"), [(2.0, "float32"), (0.5, "bfloat16")])
def test_both_engines_compute_in_what_is_faster(monkeypatch, try_anew, bfloat16_s, arithmetic):
    import openvino

    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "convolution_seconds", lambda: (1.0, bfloat16_s))
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16))
    checkpoint = Checkpoint(spec, {name: tensor.half() for name, tensor in weights_of(build_network(spec)).items()})
    assert TorchEngine(checkpoint.network(), CPU).device == f"torch, cpu ({arithmetic})"
    can_bfloat16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    expected = arithmetic if can_bfloat16 else "float32"
    assert OpenVinoEngine.of(checkpoint, None).device == f"OpenVINO, cpu ({expected})"
