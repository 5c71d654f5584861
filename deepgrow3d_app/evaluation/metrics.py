"""Agreement of two masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def dice(mask: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]) -> float:
    """Twice the overlap over the summed sizes: 1 for equal masks, 0 for disjoint ones.

    Args:
        mask, truth: (i, j, k), inside where non-zero. Two empty masks are equal.

    Raises:
        ValueError: the shapes differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"Masks of shapes {mask.shape} and {truth.shape} cannot be compared: bring them to one grid.")
    inside, expected = mask != 0, truth != 0
    total = int(inside.sum()) + int(expected.sum())
    return 2.0 * int((inside & expected).sum()) / total if total else 1.0
