"""Which engine computes: chosen by the hardware, or forced; a better one takes over when it is ready."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine import Engine, TorchEngine, best_device
from deepgrow3d_app.model.inputs import network_inputs
from deepgrow3d_app.model.openvino_engine import OpenVinoEngine, openvino_is_installed
from deepgrow3d_app.model.spec import ModelSpec

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "torch", "openvino"]
LEAST_AGREEMENT = 0.98
"""Dice of the trial's two masks. Real structures agree to 0.995 and better; those of an untrained network may not."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What is to compute.

    Attributes:
        name: ``torch``, ``openvino``, or ``auto``: PyTorch on a GPU, and OpenVINO on a CPU where it is installed.
        folder: where converted networks are kept; ``None`` converts at every start.
        compiles: whether PyTorch compiles the network on a GPU.
        threads: of OpenVINO: as many as PyTorch has in the thread that chooses. The one that makes the engine later may
            have fewer, because some other thread wanted fewer for itself: PyTorch gives new ones the latest number.
    """

    name: EngineName
    folder: Path | None
    compiles: bool = False
    threads: int = field(default_factory=torch.get_num_threads)

    def wants_openvino(self, device: torch.device) -> bool:
        """Whether OpenVINO is to compute what would otherwise be computed on ``device``."""
        return self.name == "openvino" or (self.name == "auto" and device.type == "cpu" and openvino_is_installed())


def make_engine(
    checkpoint: Checkpoint, choice: EngineChoice, device: torch.device | None = None, *, waits: bool = True
) -> Engine:
    """The chosen engine for ``checkpoint``.

    Args:
        checkpoint: weights and specification.
        choice: which engine.
        device: of PyTorch; ``None`` chooses.
        waits: whether to wait for a conversion. Else PyTorch answers until OpenVINO is ready.

    Raises:
        CheckpointError: the weights do not fit the specification.
        EngineError: ``openvino`` was asked for, and cannot be had.
    """
    device = device or best_device()
    if not choice.wants_openvino(device):
        return TorchEngine(checkpoint.network(), device, is_compiled=choice.compiles and device.type != "cpu")
    if waits:
        return OpenVinoEngine.of(checkpoint, choice.folder, choice.threads)
    first = TorchEngine(checkpoint.network(), device)
    return RelayEngine(
        first, lambda: OpenVinoEngine.of(checkpoint, choice.folder, choice.threads), trial_inputs(checkpoint.spec)
    )


class RelayEngine:
    """Computes with one engine until another one is ready, and has shown that it gives the same masks.

    Args:
        first: computes from now on.
        make_second: called in a thread of its own.
        trial: inputs (channels, i, j, k) that both are asked about.
    """

    def __init__(self, first: Engine, make_second: Callable[[], Engine], trial: Tensor) -> None:
        self._current = first
        self._take_over = threading.Thread(
            target=self._prepare, args=(make_second, trial), name="engine-take-over", daemon=True
        )
        _take_overs.add(self._take_over)
        self._take_over.start()

    @property
    def device(self) -> str:
        """That of the engine that computes now."""
        return self._current.device

    @property
    def input_device(self) -> torch.device:
        """That of the engine that computes now."""
        return self._current.input_device

    def __call__(self, inputs: Tensor) -> Tensor:
        """See :class:`~deepgrow3d_app.model.engine.Engine`."""
        return self._current(inputs)

    def wait(self, timeout_s: float) -> None:
        """Return when the second engine has taken over, or has turned out to be of no use."""
        self._take_over.join(timeout_s)

    def _prepare(self, make_second: Callable[[], Engine], trial: Tensor) -> None:
        try:
            second = make_second()
            agreement = _dice(self._current(trial) > 0, second(trial) > 0)
        except Exception as error:  # noqa: BLE001 - whatever it is, clicks go on being answered
            if _is_ending.is_set():
                return
            logger.warning("Clicks stay with %s. %s", self._current.device, error)
            return
        if agreement < LEAST_AGREEMENT:
            logger.warning(
                "Clicks stay with %s: the masks of %s agree to a Dice of %.3f only, and should to %.2f.",
                self._current.device,
                second.device,
                agreement,
                LEAST_AGREEMENT,
            )
            return
        self._current = second
        logger.info("Clicks are computed by %s", second.device)


_take_overs: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_is_ending = threading.Event()


@atexit.register
def _end_take_overs() -> None:
    """Python ends: a thread that is inside PyTorch's C++ meanwhile would abort the process."""
    _is_ending.set()
    for thread in list(_take_overs):
        while thread.is_alive():
            for process in multiprocessing.active_children():  # the conversion, which takes too long to wait for
                process.terminate()
            thread.join(0.1)


def trial_inputs(spec: ModelSpec) -> Tensor:
    """A click in the middle of a bright ball: float32 (channels, i, j, k)."""
    axes = [torch.linspace(-1, 1, extent) for extent in spec.patch_shape]
    i, j, k = torch.meshgrid(*axes, indexing="ij")
    image = 0.5 - (i**2 + j**2 + k**2 > 0.3).float()
    di, dj, dk = (extent / 2 for extent in spec.patch_shape)
    return network_inputs(image, [(di, dj, dk)], [], torch.zeros(spec.patch_shape), spec)


def _dice(mask: Tensor, other: Tensor) -> float:
    total = int(mask.sum()) + int(other.sum())
    return 2 * int((mask & other).sum()) / total if total else 1.0
