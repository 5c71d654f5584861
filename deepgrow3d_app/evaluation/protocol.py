"""A simulated annotator works on one structure: click, look at the answer, click where it is most wrong.

The protocol is that of the CVPR 2025 interactive 3-D segmentation challenge without its box: scores on
the stored grid; the first click at the structure's deepest voxel; each next one at the deepest voxel of
the largest error, foreground where the truth is missed and background where it is exceeded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.evaluation.metrics import dice
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.volume.volume import Mask, Volume


class Method(Protocol):
    """Anything that turns clicks into a mask."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """uint8 (i, j, k) on the volume's stored grid; ``previous`` is its own last answer."""


@dataclass(frozen=True, slots=True)
class NetworkMethod:
    """A trained network as a method."""

    predictor: Predictor
    name: str = "network"

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """See :class:`Method`."""
        return self.predictor.predict(volume, clicks, previous).mask


@dataclass(frozen=True, slots=True)
class Round:
    """One click and its answer.

    Attributes:
        click: the click added; ``None`` where nothing was left to correct and the answer stayed.
        dice: of the answer.
        seconds: that the answer took.
    """

    click: Click | None
    dice: float
    seconds: float


def annotate(method: Method, volume: Volume, truth: npt.NDArray[np.bool_], click_count: int) -> Iterator[Round]:
    """Work on one structure with clicks of the ``deepest`` policy.

    Args:
        truth: bool (i, j, k) on the volume's stored grid, not empty.
        click_count: rounds to yield.
    """
    simulator = ClickSimulator(volume.spacing_mm, "deepest")
    clicks: list[Click] = []
    mask: Mask | None = None
    for _ in range(click_count):
        current = np.zeros_like(truth) if mask is None else mask > 0
        click = simulator.next_click(truth, current, [c.index for c in clicks])
        if click is None:
            yield Round(None, 1.0 if mask is None else dice(mask, truth), 0.0)
            continue
        clicks.append(click)
        started = time.perf_counter()
        mask = method.segment(volume, clicks, mask)
        yield Round(click, dice(mask, truth), time.perf_counter() - started)


def repeat(
    method: Method, volume: Volume, truth: npt.NDArray[np.bool_], clicks: Sequence[Click | None]
) -> Iterator[Round]:
    """Give ``method`` the clicks that another method's answers led to, one more each round.

    Args:
        truth: as in :func:`annotate`.
        clicks: of its rounds; ``None`` leaves the answer as it is.
    """
    given: list[Click] = []
    mask: Mask | None = None
    for click in clicks:
        started = time.perf_counter()
        if click is not None:
            given.append(click)
            mask = method.segment(volume, given, mask)
        yield Round(click, 0.0 if mask is None else dice(mask, truth), time.perf_counter() - started)
