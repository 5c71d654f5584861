"""What computes the forward pass: one small interface, and PyTorch behind it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from deepgrow3d_app.model.network import on_device
from deepgrow3d_app.model.precision import reduced_precision


class Engine(Protocol):
    """Runs a trained network on one patch; may be called by several threads at once."""

    @property
    def device(self) -> str:
        """Where it computes, for people to read."""

    @property
    def input_device(self) -> torch.device:
        """Where inputs are best made: what lies elsewhere is copied there first."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits, float32 (i, j, k) on the CPU, for inputs float32 (channels, i, j, k)."""


class TorchEngine:
    """PyTorch on a GPU where there is one, else on the CPU; 16-bit arithmetic where that is faster.

    Args:
        network: weights loaded; it is moved to ``device`` and belongs to the engine from then on.
        device: ``None`` chooses.
        is_compiled: whether ``torch.compile`` makes kernels of the network: faster on a GPU, but the first click
            waits for them (a minute), and a C++ compiler has to be installed.
    """

    def __init__(self, network: nn.Module, device: torch.device | None = None, *, is_compiled: bool = False) -> None:
        self._device = device if device is not None else best_device()
        self._dtype = reduced_precision(self._device)
        self._network = on_device(network.eval(), self._device)
        if is_compiled:
            self._network.compile()

    @property
    def device(self) -> str:
        """Library, device and arithmetic, for example ``torch, cpu (bfloat16)``."""
        return f"torch, {self._device} ({str(self._dtype or torch.float32).removeprefix('torch.')})"

    @property
    def input_device(self) -> torch.device:
        """The device it computes on."""
        return self._device

    @torch.inference_mode()
    def __call__(self, inputs: Tensor) -> Tensor:
        """See :class:`Engine`."""
        batch = inputs[None].to(self._device, memory_format=torch.channels_last_3d)
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None):
            logits: Tensor = self._network(batch)
        return logits[0, 0].float().cpu()


def best_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
