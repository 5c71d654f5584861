"""A simulated annotator works on one structure: click, look at the answer, click where it is most wrong.

The protocol is that of the CVPR 2025 interactive 3-D segmentation challenge without its box: scores on
the stored grid; the first click at the structure's deepest voxel; each next one at the deepest voxel of
the largest error, foreground where the truth is missed and background where it is exceeded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.displacement import displaced
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.evaluation.metrics import MaskScores, Reference
from deepgrow3d_app.evaluation.results import MethodRecord, Round
from deepgrow3d_app.volume.geometry import Index
from deepgrow3d_app.volume.volume import Mask, Volume

Region = npt.NDArray[np.bool_]
Annotator = Callable[[Region, Mask | None, Sequence[Index]], Click | None]
"""Chooses a click, given the truth, the mask so far (``None``: none yet) and the voxels clicked already."""


class Method(Interface):
    """Anything that turns clicks into a mask."""

    @property
    def record(self) -> MethodRecord:
        """What tables and ``results.json`` say of it; no two methods of one evaluation share a name."""

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """uint8 (i, j, k), 0 or 1, on the stored grid; ``previous`` is its own answer to all clicks but the last."""


def perfect_user(volume: Volume) -> Annotator:
    """Clicks the deepest voxel of the largest error."""
    simulator = ClickSimulator(volume.spacing_mm)

    def next_click(truth: Region, mask: Mask | None, taken: Sequence[Index]) -> Click | None:
        inside = np.zeros_like(truth) if mask is None else mask.view(np.bool_)
        return simulator.next_click(truth, inside, taken)

    return next_click


def noisy_user(volume: Volume, noise_mm: float, generator: np.random.Generator) -> Annotator:
    """Means what :func:`perfect_user` clicks, and misses it by a Gaussian of ``noise_mm`` along each axis."""
    perfect = perfect_user(volume)

    def next_click(truth: Region, mask: Mask | None, taken: Sequence[Index]) -> Click | None:
        meant = perfect(truth, mask, taken)
        if meant is None:
            return None
        return displaced(meant, noise_mm, volume.shape, volume.spacing_mm, taken, generator)

    return next_click


def given_clicks(rounds: Sequence[Round]) -> Annotator:
    """Clicks what was clicked in ``rounds``, one after the other, whatever the mask looks like."""
    remaining = iter(rounds)

    def next_click(truth: Region, mask: Mask | None, taken: Sequence[Index]) -> Click | None:
        del truth, mask, taken
        given = next(remaining, None)
        if given is None or given.index is None or given.is_positive is None:
            return None
        return Click(given.index, given.is_positive)

    return next_click


def annotate(
    method: Method,
    volume: Volume,
    reference: Reference,
    next_click: Annotator,
    click_count: int,
) -> Iterator[tuple[Round, Mask]]:
    """Work on one structure: yields each round with the mask (uint8, stored grid) that answered it.

    Args:
        method: what answers.
        volume: the image.
        reference: the structure's truth on the volume's stored grid, not empty.
        next_click: who clicks.
        click_count: rounds to yield. Once nothing is left to correct, they repeat the last answer.
    """
    clicks: list[Click] = []
    mask: Mask | None = None
    scores = MaskScores(0.0, 0.0, float("inf"))
    for _ in range(click_count):
        click = next_click(reference.truth, mask, [c.index for c in clicks])
        seconds = 0.0
        if click is not None:
            clicks.append(click)
            started = time.perf_counter()
            mask = method.segment(volume, clicks, mask)
            seconds = time.perf_counter() - started
            scores = reference.score(mask)
        answer = mask if mask is not None else np.zeros(volume.shape, dtype=np.uint8)
        index, is_positive = (None, None) if click is None else (click.index, click.is_positive)
        yield Round.scored(index, is_positive, scores, seconds), answer
