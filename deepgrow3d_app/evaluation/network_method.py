"""A trained network as a method that an evaluation can score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.volume.volume import Mask, Volume

NETWORK = "network"


class NetworkMethod:
    """Answers clicks with the network of a checkpoint, in this process.

    Args:
        checkpoint: its file.
        name: what tables call it.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """

    def __init__(self, checkpoint: Path, name: str = NETWORK) -> None:
        loaded = Checkpoint.load(checkpoint)
        self._predictor = Predictor(loaded.spec, TorchEngine(loaded.network()))
        self.record = MethodRecord(
            name,
            {
                "checkpoint": checkpoint.name,
                "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
                "parameters": str(sum(tensor.numel() for tensor in loaded.weights.values())),
                "device": self._predictor.engine.device,
                "spec": loaded.spec.to_json(),
                "origin": json.dumps(loaded.origin),
            },
        )

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """See :class:`~deepgrow3d_app.evaluation.protocol.Method`."""
        return self._predictor.predict(volume, clicks, previous, clicks[-1:]).mask
