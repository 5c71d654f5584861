"""Where training's randomness comes from: numbers, not states, so that any part of it can be drawn again."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What is drawn; no two streams have anything in common."""

    PATCH = 1
    ANNOTATOR = 2
    CLICK = 3
    FORGETTING = 4


def generator_of(stream: Stream, seed: int, slot: int, number: int, round_number: int = 0) -> np.random.Generator:
    """The generator of one stream for a patch and a round on it.

    Args:
        stream: what is drawn.
        seed: of the run.
        slot: place in the batch over all processes.
        number: of the patch of that slot.
        round_number: on that patch.
    """
    # Always as many words: NumPy fills up with zeros what is shorter than four.
    return np.random.default_rng([seed, slot, number, stream, round_number])
