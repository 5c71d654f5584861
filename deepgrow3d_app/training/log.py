"""The figures of a run, as lines of JSON and as TensorBoard's curves."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from types import TracebackType

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from deepgrow3d_app.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands.

    Attributes:
        step: gradient steps done.
        elapsed_s: wall-clock time of this run, with what it took before it was resumed.
        done: share of the budget that is used up.
        loss: mean of the latest steps; NaN before the first one.
        skipped: steps so far whose loss or gradient was not finite, and that changed nothing.
        dice: mean Dice of the latest training patches of the first process, by number of clicks.
        learning_rate: of the latest step.
        validation: mean Dice on validation cases, by number of clicks; ``None`` between validations.
    """

    step: int
    elapsed_s: float
    done: float
    loss: float
    skipped: int
    dice: dict[int, float]
    learning_rate: float
    validation: dict[int, float] | None = None


class TrainingLog:
    """Writes figures to a run's folder; after a resumption, over those that came after the saved state.

    Args:
        folder: the run's.
        step: where the run starts or goes on.
    """

    def __init__(self, folder: RunFolder, step: int) -> None:
        folder.cut_log(step)
        folder.curves.mkdir(exist_ok=True)
        self._open = ExitStack()
        self._lines = self._open.enter_context(folder.log_file.open("a", encoding="utf-8"))
        # Not SummaryWriter: it writes in a thread, which dies of a full disk unnoticed and then blocks its callers.
        self._curves = EventsWriter(str(folder.curves / "events"), f".{os.getpid()}")
        self._open.callback(self._curves.close)
        # TensorBoard drops what it knows of later steps.
        self._add(Event(session_log=SessionLog(status=SessionLog.START), step=step + 1))

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def write(self, progress: Progress) -> None:
        """One line, and a point on each curve.

        Raises:
            OSError: the disk is full.
        """
        has_loss = math.isfinite(progress.loss)
        known = {**asdict(progress), "loss": progress.loss if has_loss else None}  # JSON has no NaN
        self._lines.write(json.dumps(known, allow_nan=False) + "\n")
        self._lines.flush()
        figures = {"loss": progress.loss} if has_loss else {}
        figures["learning rate"] = progress.learning_rate
        for group, dice in (("training", progress.dice), ("validation", progress.validation or {})):
            figures |= {f"Dice {group}/{clicks} clicks": value for clicks, value in dice.items()}
        for name, value in figures.items():
            self._add(Event(summary=scalar(name, value), step=progress.step))
        self._curves.flush()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._curves.write_event(event)
