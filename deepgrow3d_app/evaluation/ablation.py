"""What parts of the recipe are worth: the file that ``benchmarks/ablation.py`` writes, for the model card."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from deepgrow3d_app.errors import UnreadableVolume

Data = Literal["trunk", "hippocampus"]


@dataclass(frozen=True, slots=True)
class ShortRun:
    """A short training and its scores.

    Attributes:
        seed: of all its randomness.
        trunk, hippocampus: mean Dice of the perfect user by number of clicks.
        training_s: wall-clock time.
    """

    seed: int
    trunk: dict[int, float]
    hippocampus: dict[int, float]
    training_s: float


@dataclass(frozen=True, slots=True)
class Variant:
    """Short trainings that differ from the base in one thing, and from each other by chance.

    Attributes:
        name: of the variant; the first one is the base.
        meaning: what is different.
        runs: one for each seed, at least one.
    """

    name: str
    meaning: str
    runs: tuple[ShortRun, ...]

    @property
    def training_s(self) -> float:
        """Wall-clock time of a training: the median over the seeds."""
        return statistics.median(run.training_s for run in self.runs)

    def mean(self, data: Data) -> dict[int, float]:
        """Over the seeds, by number of clicks."""
        scores: list[dict[int, float]] = [getattr(run, data) for run in self.runs]
        return {clicks: sum(score[clicks] for score in scores) / len(scores) for clicks in scores[0]}

    def range_of(self, data: Data) -> tuple[float, float]:
        """The lowest and the highest seed, each by its mean over the numbers of clicks."""
        means = [sum(score.values()) / len(score) for score in (getattr(run, data) for run in self.runs)]
        return min(means), max(means)


@dataclass(frozen=True, slots=True)
class Ablation:
    """Variants that were trained and scored alike.

    Attributes:
        command: that did it.
        steps: of each training.
        variants: the base first.
    """

    command: str
    steps: int
    variants: tuple[Variant, ...]


def read_ablation(file: Path) -> Ablation:
    """The variants in ``file``.

    Raises:
        UnreadableVolume: missing or damaged.
    """
    try:
        return TypeAdapter(Ablation).validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        fault = " ".join(str(error).split())[:200]
        raise UnreadableVolume(str(file), fault, "Make it by benchmarks/ablation.py.") from error
