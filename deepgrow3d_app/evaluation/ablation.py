"""What parts of the recipe are worth: the file that ``benchmarks/ablation.py`` writes, for the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from deepgrow3d_app.errors import UnreadableVolume


@dataclass(frozen=True, slots=True)
class Variant:
    """A short training that differs from the base in one thing.

    Attributes:
        name: of the variant; the first one is the base.
        meaning: what is different.
        trunk, hippocampus: mean Dice of the perfect user by number of clicks.
        training_s: wall-clock time.
    """

    name: str
    meaning: str
    trunk: dict[int, float]
    hippocampus: dict[int, float]
    training_s: float


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
