"""The figures of a run, as lines of JSON and as TensorBoard's curves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from types import TracebackType

from tensorboardX import SummaryWriter

from deepgrow3d_app.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands.

    Attributes:
        step: gradient steps done.
        elapsed_s: wall-clock time of this run, with what it took before it was resumed.
        done: share of the budget that is used up.
        loss: mean of the latest steps.
        dice: mean Dice of the latest training patches, by number of clicks.
        learning_rate: of the latest step.
        validation: mean Dice on validation cases, by number of clicks; ``None`` between validations.
    """

    step: int
    elapsed_s: float
    done: float
    loss: float
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
        self._lines = folder.log_file.open("a", encoding="utf-8")
        # Step by step, not in the background: a curve that is told of is on disk.
        self._curves = SummaryWriter(str(folder.path / "tensorboard"), purge_step=step + 1, max_queue=1)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._curves.close()

    def write(self, progress: Progress) -> None:
        """One line, and a point on each curve.

        Raises:
            OSError: the disk is full.
        """
        self._lines.write(json.dumps(asdict(progress)) + "\n")
        self._lines.flush()
        self._curves.add_scalar("loss", progress.loss, progress.step)
        self._curves.add_scalar("learning rate", progress.learning_rate, progress.step)
        for group, dice in (("training", progress.dice), ("validation", progress.validation or {})):
            for clicks, value in dice.items():
                self._curves.add_scalar(f"Dice {group}/{clicks} clicks", value, progress.step)
        self._curves.flush()
