"""What MONAI Label calls a train task: how viewers see that the model learns."""

from __future__ import annotations

import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from deepgrow3d_app.retraining.order import RetrainingOrder
from deepgrow3d_app.serving.training.shown_training import shown_training
from deepgrow3d_app.serving.training.trainings import Trainings

LOOK_EVERY_S = 0.5


class DeepGrowTrainTask(TrainTask):  # type: ignore[misc]
    """Trains the served model on from the labels that are saved.

    Args:
        trainings: those of the studies.
    """

    def __init__(self, trainings: Trainings) -> None:
        super().__init__("Trains the model on from the labels saved here; a better one is served at once")
        self._trainings = trainings

    def config(self) -> dict[str, Any]:
        """What may be chosen, with what is chosen otherwise."""
        return RetrainingOrder().model_dump()

    def stats(self) -> dict[str, Any]:
        """How the latest training did, from its first validation on; ``total_time`` once it has ended."""
        state = self._trainings.latest()
        if state is None or not state.curve:
            return {}
        stats = {
            "epoch": state.epoch,
            "total_epochs": state.total_epochs,
            "best_metric": round(state.best_dice, 4),
            "dice": state.dice,
            "status": state.status,
        }
        if state.ended is not None:
            hours, rest = divmod(round(state.ended - state.started), 3600)
            stats["total_time"] = f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
        return stats

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """MONAI Label's own way to train: returns when the training has ended."""
        state = self._trainings.start(RetrainingOrder.of(request), str(request.get("client_id") or ""))
        while self._trainings.running() is not None:
            time.sleep(LOOK_EVERY_S)
        return shown_training(self._trainings, self._trainings.latest() or state)
