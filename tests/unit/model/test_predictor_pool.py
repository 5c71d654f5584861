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


class Machine:
    """Which of its devices compute."""

    def __init__(self):
        self.broken = {torch.device("cuda", 0), torch.device("cuda", 1)}

    def works(self, device):
        return device not in self.broken


def gpu(number, error):
    device = Device(f"cuda:{number}", error)
    device.input_device = torch.device("cuda", number)
    return device


LOST = RuntimeError("CUDA error: an illegal memory access was encountered")


def failing(number, error):
    """A predictor on a GPU that fails before anything is computed."""
    predictor = Predictor(SPEC, gpu(number, error))
    predictor.predict = lambda *_: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    return predictor


def test_a_lost_gpu_is_not_asked_again_and_the_other_one_answers(caplog):
    pool = PredictorPool([failing(0, LOST), Predictor(SPEC, Device("second"))], works=Machine().works)
    assert [pool.predict(AIR, CLICK).device for _ in range(2)] == ["second"] * 2
    assert pool.devices == ("second",)
    assert len([record for record in caplog.records if "cuda:0 is lost" in record.message]) == 1


def test_when_all_gpus_are_lost_the_spare_answers():
    gpus = [failing(number, LOST) for number in (0, 1)]
    pool = PredictorPool(gpus, [lambda: Predictor(SPEC, Device("cpu"))], Machine().works)
    assert [pool.predict(AIR, CLICK).device for _ in range(2)] == ["cpu"] * 2
    assert pool.devices == ("cpu",)


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"]
)
def test_a_gpu_without_memory_is_not_lost(words):
    pool = PredictorPool([failing(0, RuntimeError(words))], [lambda: Predictor(SPEC, Device("cpu"))], Machine().works)
    assert pool.predict(AIR, CLICK).device == "cpu"
    assert pool.devices == ("cuda:0",)


def test_a_fault_of_ours_on_a_gpu_that_works_loses_no_gpu():
    pool = PredictorPool([failing(7, RuntimeError("CUDNN_STATUS_NOT_SUPPORTED"))], works=Machine().works)
    with pytest.raises(RuntimeError, match="NOT_SUPPORTED"):
        pool.predict(AIR, CLICK)
    assert pool.devices == ("cuda:7",)


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
    served = coarse_spec(ModelSpec(patch_shape=(80, 80, 80), channels=(32, 64, 128, 192)))
    assert served is not None
    assert served.patch_shape == (48, 48, 48), "rounded up: of 32, too little can be seen"


def test_whoever_answers_is_told_which_clicks_are_new(monkeypatch):
    told = []
    predict = Predictor.predict

    def spied(self, volume, clicks, previous=None, latest=()):
        told.append((self.engine.device, latest))
        return predict(self, volume, clicks, previous, latest)

    monkeypatch.setattr(Predictor, "predict", spied)
    pool = PredictorPool([Predictor(SPEC, Device("gpu", full()))], [lambda: Predictor(SPEC, Device("cpu"))])
    pool.predict(AIR, [*CLICK, Click((1, 1, 1))], np.ones((8, 8, 8), np.uint8), [Click((1, 1, 1))])
    assert told == [("gpu", [Click((1, 1, 1))]), ("cpu", [Click((1, 1, 1))])]
