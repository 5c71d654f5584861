"""A moving average of the weights, which scores better than the latest weights and is what is saved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepgrow3d_app.model.checkpoint import weights_of


class WeightAverage:
    """Follows a network quickly at first and slowly later.

    Args:
        network: what is averaged; its present weights are the start.
        decay: how much of the average is kept at each update, in the long run.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in weights_of(network).items()
        }

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the present weights of ``network``."""
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in weights_of(network).items():
            self.weights[name].lerp_(parameter.detach(), 1 - keep)
        self.updates += 1
