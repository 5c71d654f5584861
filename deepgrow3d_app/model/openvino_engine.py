"""OpenVINO behind the engine's interface: 1.3 to 3 times as fast as PyTorch on a CPU.

The network is converted once for each checkpoint, in a process of its own, and kept on disk; compiling what is kept
takes a fraction of a second. OpenVINO is imported when it is first needed: without it, PyTorch computes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import shutil
import signal
import tempfile
import warnings
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepgrow3d_app.errors import EngineError
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.precision import cpu_prefers_bfloat16
from deepgrow3d_app.volume.atomic_folder import replaced_folder

if TYPE_CHECKING:
    import openvino

MODEL_FILE = "network.xml"
KEPT_NETWORKS = 4
LOW_PRIORITY = 10
"""Of the conversion, as ``nice`` counts: clicks that are answered meanwhile come first."""


class OpenVinoEngine:
    """OpenVINO on the CPU, in bfloat16 where that is faster; safe to share between threads.

    Args:
        model: a converted network, (1, channels, i, j, k) to (1, 1, i, j, k).
        threads: that compute it; ``None``: as many as PyTorch has in this thread.
    """

    def __init__(self, model: openvino.Model, threads: int | None = None) -> None:
        import openvino

        core = openvino.Core()
        can_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        in_bfloat16 = can_bfloat16 and cpu_prefers_bfloat16()
        self._precision = "bfloat16" if in_bfloat16 else "float32"
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "bf16" if in_bfloat16 else "f32",
                "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            },
        )
        self._idle = deque[Any]()  # requests, each of which holds tens of MiB: as many as calls ran at once

    @classmethod
    def of(cls, checkpoint: Checkpoint, folder: Path | None, threads: int | None = None) -> OpenVinoEngine:
        """The engine of ``checkpoint``; its network is converted now, unless ``folder`` has it.

        Args:
            checkpoint: weights and specification.
            folder: the latest ``KEPT_NETWORKS`` converted networks, one for each checkpoint; made where it is missing.
                ``None`` keeps none.
            threads: that compute it; ``None``: as many as PyTorch has in this thread.

        Raises:
            EngineError: OpenVINO is not installed, or cannot convert or compile this network.
        """
        if not openvino_is_installed():
            raise EngineError("OpenVINO is not installed. `make install` does that; or choose the engine 'torch'.")
        try:
            if folder is not None:
                return cls._of(checkpoint, folder, threads)
            with tempfile.TemporaryDirectory(prefix="deepgrow3d-") as temporary:
                return cls._of(checkpoint, Path(temporary), threads)
        except (RuntimeError, OSError, ValueError, TypeError) as error:
            fault = str(error).strip().partition("\n")[0].rstrip(".")
            raise EngineError(f"OpenVINO cannot run this network ({fault}). Choose the engine 'torch'.") from error

    @classmethod
    def _of(cls, checkpoint: Checkpoint, folder: Path, threads: int | None) -> OpenVinoEngine:
        import openvino

        converted = folder / f"{checkpoint.digest()}-openvino-{openvino.__version__.partition('-')[0]}"
        if not (converted / MODEL_FILE).is_file():
            try:
                _convert_elsewhere(checkpoint, converted)
            except RuntimeError:
                if not (converted / MODEL_FILE).is_file():  # else another server was faster
                    raise
        engine = cls(openvino.Core().read_model(converted / MODEL_FILE), threads)
        _keep_latest(folder, converted)
        return engine

    @property
    def device(self) -> str:
        """Library, device and arithmetic: ``OpenVINO, cpu (bfloat16)``."""
        return f"OpenVINO, cpu ({self._precision})"

    @property
    def threads(self) -> int:
        """That compute."""
        return int(self._compiled.get_property("INFERENCE_NUM_THREADS"))

    @property
    def input_device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def __call__(self, inputs: Tensor) -> Tensor:
        """See :class:`~deepgrow3d_app.model.engine.Engine`."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            logits = request.infer([inputs[None].contiguous().numpy()])[0]
            return torch.from_numpy(logits[0, 0].copy())  # the request writes its next answer into the same memory
        finally:
            self._idle.append(request)


def openvino_is_installed() -> bool:
    """Whether OpenVINO could be imported."""
    return importlib.util.find_spec("openvino") is not None


def _keep_latest(folder: Path, used: Path) -> None:
    """Remove all converted networks but those that were used last. What another server computes with is in memory."""
    with contextlib.suppress(OSError):  # of a folder that may not be written, or that another server tidies, too
        os.utime(used)
        kept = sorted(folder.glob(f"*/{MODEL_FILE}"), key=lambda file: file.parent.stat().st_mtime, reverse=True)
        for file in kept[KEPT_NETWORKS:]:
            shutil.rmtree(file.parent)


def _convert_elsewhere(checkpoint: Checkpoint, folder: Path) -> None:
    """Convert in a process of its own: tracing would hold up the threads of this one, and keep its memory."""
    with tempfile.TemporaryDirectory(prefix="deepgrow3d-") as temporary:
        file = Path(temporary) / "checkpoint.safetensors"
        checkpoint.save(file)
        spawning = multiprocessing.get_context("spawn")
        ours, theirs = spawning.Pipe(duplex=False)
        # A daemon ends with this process, and this process does not wait for it.
        process = spawning.Process(target=_convert_and_tell, args=(file, folder, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            fault = ours.recv()
        except EOFError:
            fault = "its conversion ended early"
        process.join()
    if fault is not None:
        raise RuntimeError(fault)


def _convert_and_tell(file: Path, folder: Path, told: Connection) -> None:
    """Convert, and send ``None`` or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in a terminal is for the server, which ends this process
    os.nice(LOW_PRIORITY)
    fault = None
    try:
        _convert(file, folder)
    except Exception as error:  # noqa: BLE001 - whoever waits is told
        fault = str(error) or type(error).__name__
    with contextlib.suppress(BrokenPipeError):  # the server was stopped meanwhile
        told.send(fault)


def _convert(file: Path, folder: Path) -> None:
    """Write the network of the checkpoint ``file`` to ``folder``, which appears when it is complete."""
    import openvino

    checkpoint = Checkpoint.load(file)
    shape = (1, checkpoint.spec.input_channels, *checkpoint.spec.patch_shape)
    network = checkpoint.network().eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of tracing: the shapes that it takes for constants are constants
        model = openvino.convert_model(network, example_input=torch.zeros(shape), input=[list(shape)])
    if (folder / MODEL_FILE).is_file():  # another server was faster, and may be reading it
        return
    with replaced_folder(folder) as partial:
        openvino.save_model(model, partial / MODEL_FILE, compress_to_fp16=True)  # as the checkpoint keeps them
