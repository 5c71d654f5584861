import threading

import numpy as np
import pytest
import torch

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import OutOfMemory
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.model.predictor_pool import PredictorPool, coarse_spec
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.volume import Volume

SPEC = ModelSpec(patch_shape=(32, 32, 32), spacing_mm=(2.0, 2.0, 3.0))
AIR = Volume(np.full((8, 8, 8), -1000, np.int16), np.eye(4))
CLICK = [Click((4, 4, 4))]


class Device:
    """An engine that answers with nothing, or raises."""

    def __init__(self, name, error=None):
        self.device = name
        self.input_device = torch.device("cpu")
        self.error = error
        self.shapes = []
        self.entered = threading.Event()
        self.release = threading.Event()
        self.release.set()

    def __call__(self, inputs):
        self.entered.set()
        self.release.wait(20)
        if self.error:
            raise self.error
        self.shapes.append(tuple(inputs.shape[1:]))
        return torch.full(inputs.shape[1:], -1.0)


def full():
    return torch.OutOfMemoryError("CUDA out of memory")


def test_a_call_goes_to_the_device_that_is_idle():
    first, second = Device("first"), Device("second")
    first.release.clear()
    pool = PredictorPool([Predictor(SPEC, first), Predictor(SPEC, second)])
    busy = threading.Thread(target=pool.predict, args=(AIR, CLICK))
    busy.start()
    assert first.entered.wait(20)
    assert [pool.predict(AIR, CLICK).device for _ in range(3)] == ["second"] * 3
    first.release.set()
    busy.join()
    assert pool.predict(AIR, CLICK).device == "first"


def test_a_full_gpu_hands_over_to_the_spares_in_turn():
    asked = []

    def spare(name, error=None):
        def make():
            asked.append(name)
            return Predictor(SPEC, Device(name, error))

        return make

    failing = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    pool = PredictorPool([Predictor(SPEC, Device("gpu", full()))], [spare("cpu", failing), spare("coarse")])
    assert pool.predict(AIR, CLICK).device == "coarse"
    assert pool.predict(AIR, CLICK).device == "coarse"
    assert asked == ["cpu", "coarse"]


def test_no_memory_anywhere_is_said():
    pool = PredictorPool([Predictor(SPEC, Device("gpu", MemoryError()))])
    with pytest.raises(OutOfMemory, match="Close other programs"):
        pool.predict(AIR, CLICK)


def test_other_faults_are_not_taken_for_a_lack_of_memory():
    pool = PredictorPool([Predictor(SPEC, Device("gpu", RuntimeError("shapes differ")))], [])
    with pytest.raises(RuntimeError, match="shapes differ"):
        pool.predict(AIR, CLICK)


def test_a_coarse_look_covers_the_same_millimetres():
    coarse = coarse_spec(SPEC)
    assert coarse is not None
    assert coarse.patch_shape == (16, 16, 16)
    assert coarse.spacing_mm == (4.0, 4.0, 6.0)
    assert coarse_spec(coarse) is None
