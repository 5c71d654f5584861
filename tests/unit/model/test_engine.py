import os
import shutil
import subprocess
import sys
import tempfile
import threading

import pytest
import torch

from deepgrow3d_app.errors import EngineError
from deepgrow3d_app.model import openvino_engine
from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.engine_choice import EngineChoice, RelayEngine, make_engine, trial_inputs
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.openvino_engine import KEPT_NETWORKS, MODEL_FILE, OpenVinoEngine
from deepgrow3d_app.model.spec import ModelSpec

SPEC = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    return Checkpoint(SPEC, {name: tensor.half() for name, tensor in weights_of(build_network(SPEC)).items()})


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory):
    """A folder that has the network converted already."""
    folder = tmp_path_factory.mktemp("engines")
    OpenVinoEngine.of(checkpoint, folder)
    return folder


class Constant:
    """An engine that answers every voxel with one number, +1 or -1 by the brightness where it is ``None``."""

    def __init__(self, name, value=None):
        self.device = name
        self.input_device = CPU
        self.value = value

    def __call__(self, inputs):
        return inputs[0] if self.value is None else torch.full(inputs.shape[1:], self.value)


def test_both_engines_compute_the_same_network(checkpoint, converted):
    inputs = torch.rand(SPEC.input_channels, *SPEC.patch_shape, generator=torch.Generator().manual_seed(1))
    expected = TorchEngine(checkpoint.network(), CPU)(inputs)
    found = OpenVinoEngine.of(checkpoint, converted)(inputs)
    assert found.shape == SPEC.patch_shape
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.05 * float(expected.std()) + 0.02, rtol=0.05)


def test_a_network_is_converted_once(checkpoint, converted, monkeypatch):
    def refuse(file, folder):
        raise AssertionError("converted again")

    monkeypatch.setattr(openvino_engine, "_convert_elsewhere", refuse)
    OpenVinoEngine.of(checkpoint, converted)
    assert len(list(converted.glob(f"*/{MODEL_FILE}"))) == 1


def test_only_the_networks_that_were_used_last_are_kept(checkpoint, converted, tmp_path):
    (network,) = converted.iterdir()
    for age in range(6):
        shutil.copytree(network, tmp_path / f"older-{age}")
        os.utime(tmp_path / f"older-{age}", (1000 - age, 1000 - age))
    shutil.copytree(network, tmp_path / network.name)
    os.utime(tmp_path / network.name, (0, 0))
    (tmp_path / "notes").mkdir()
    OpenVinoEngine.of(checkpoint, tmp_path)
    left = {network.name, "notes", *(f"older-{age}" for age in range(KEPT_NETWORKS - 1))}
    assert {folder.name for folder in tmp_path.iterdir()} == left


def test_a_server_that_converts_more_slowly_takes_what_is_there(checkpoint, converted, tmp_path, monkeypatch):
    def too_late(checkpoint, folder):
        shutil.copytree(converted / folder.name, folder)
        raise RuntimeError("Directory not empty")

    monkeypatch.setattr(openvino_engine, "_convert_elsewhere", too_late)
    assert "OpenVINO" in OpenVinoEngine.of(checkpoint, tmp_path).device


def test_a_network_need_not_be_kept(checkpoint, converted, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    inputs = torch.rand(SPEC.input_channels, *SPEC.patch_shape)
    engine = OpenVinoEngine.of(checkpoint, None)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(engine(inputs), OpenVinoEngine.of(checkpoint, converted)(inputs))


def test_other_weights_are_another_network(checkpoint):
    weights = {name: tensor.clone() for name, tensor in checkpoint.weights.items()}
    next(iter(weights.values())).view(-1)[0] += 1
    assert Checkpoint(SPEC, weights).digest() != checkpoint.digest()
    assert Checkpoint(SPEC, dict(checkpoint.weights), {"steps": "3"}).digest() == checkpoint.digest()


def test_answers_are_not_written_over_by_the_next_ones(checkpoint, converted):
    engine = OpenVinoEngine.of(checkpoint, converted)
    first = engine(torch.zeros(SPEC.input_channels, *SPEC.patch_shape))
    before = first.clone()
    engine(torch.ones(SPEC.input_channels, *SPEC.patch_shape))
    assert torch.equal(first, before)


def test_threads_share_an_engine(checkpoint, converted):
    engine = OpenVinoEngine.of(checkpoint, converted)
    inputs = [torch.full((SPEC.input_channels, *SPEC.patch_shape), value) for value in (0.0, 0.3, 0.6, 0.9)]
    expected = [engine(one) for one in inputs]
    found = {}

    def ask(place):
        found[place] = [engine(inputs[place]) for _ in range(5)]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in range(4):
        assert all(torch.equal(answer, expected[place]) for answer in found[place])


def test_one_thread_after_the_other_takes_the_memory_of_one(checkpoint, converted):
    """Threads of a server come and go; each request of OpenVINO holds all activations of the network."""
    engine = OpenVinoEngine.of(checkpoint, converted)
    for _ in range(3):
        asking = threading.Thread(target=engine, args=(torch.zeros(SPEC.input_channels, *SPEC.patch_shape),))
        asking.start()
        asking.join()
    assert len(engine._idle) == 1


def test_a_second_engine_that_agrees_takes_over():
    engine = RelayEngine(Constant("first"), lambda: Constant("second"), trial_inputs(SPEC))
    engine.wait(20)
    assert engine.device == "second"


def test_a_second_engine_with_other_masks_is_left_alone(caplog):
    engine = RelayEngine(Constant("first"), lambda: Constant("second", -1.0), trial_inputs(SPEC))
    engine.wait(20)
    assert engine.device == "first"
    assert "agree to a Dice of 0.000" in caplog.text


def test_a_second_engine_that_cannot_be_made_stops_nothing(caplog):
    def fail():
        raise EngineError("no such instruction")

    engine = RelayEngine(Constant("first"), fail, trial_inputs(SPEC))
    engine.wait(20)
    assert engine.device == "first"
    assert float(engine(torch.ones(SPEC.input_channels, 2, 2, 2)).sum()) == 8
    assert "no such instruction" in caplog.text


def test_the_first_engine_answers_while_the_second_is_made():
    ready = threading.Event()

    def slowly():
        ready.wait(20)
        return Constant("second")

    engine = RelayEngine(Constant("first"), slowly, trial_inputs(SPEC))
    assert engine.device == "first"
    ready.set()
    engine.wait(20)
    assert engine.device == "second"


ENDS_MEANWHILE = """
import time, torch
from deepgrow3d_app.model.engine_choice import RelayEngine

class Convolution:
    device = "CPU"
    def __call__(self, inputs):
        for _ in range(300):
            inputs = torch.conv3d(inputs[None], torch.ones(1, 1, 3, 3, 3), padding=1)[0] / 27
        return inputs[0]

def conversion():
    global running
    running = True
    return Convolution()

running = False
engine = RelayEngine(Convolution(), conversion, torch.ones(1, 16, 16, 16))
while not running:
    time.sleep(0.01)
"""


def test_the_program_may_end_while_an_engine_is_tried():
    ended = subprocess.run([sys.executable, "-c", ENDS_MEANWHILE], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("waits", [True, False])
def test_openvino_has_the_threads_of_the_process_wherever_it_is_made(checkpoint, converted, waits):
    """A thread that wants one thread for itself leaves one to all later ones, such as that which makes an engine."""
    choice = EngineChoice("openvino", converted)
    expected = torch.get_num_threads()
    made = []

    def make():
        torch.set_num_threads(1)
        made.append(make_engine(checkpoint, choice, CPU, waits=waits))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    torch.set_num_threads(expected)
    engine = made[0]
    if isinstance(engine, RelayEngine):
        engine.wait(60)
        engine = engine._current
    assert isinstance(engine, OpenVinoEngine)
    assert engine.threads == expected


def test_without_openvino_torch_computes(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "torch" in make_engine(checkpoint, EngineChoice("auto", tmp_path), CPU).device
    with pytest.raises(EngineError, match="not installed"):
        make_engine(checkpoint, EngineChoice("openvino", tmp_path), CPU)


def test_a_damaged_conversion_is_told(checkpoint, converted, tmp_path):
    folder = tmp_path / next(converted.iterdir()).name
    folder.mkdir()
    (folder / MODEL_FILE).write_text("<net")
    with pytest.raises(EngineError, match="OpenVINO cannot run this network"):
        OpenVinoEngine.of(checkpoint, tmp_path)
