"""The grid of a region as a graph: voxels are nodes, neighbours are joined by edges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Pairs = npt.NDArray[np.int32]
"""Flat indices of the two voxels of each pair of neighbours, (2, pairs); each pair once."""


def neighbour_pairs(image: npt.NDArray[np.floating]) -> tuple[Pairs, npt.NDArray[np.float64]]:
    """All pairs of 6-neighbours of a 3-D grid.

    Args:
        image: (i, j, k).

    Returns:
        The flat indices of both voxels of each pair, (2, pairs), and the absolute difference of their
        intensities, (pairs,).
    """
    nodes = np.arange(image.size, dtype=np.int32).reshape(image.shape)
    pairs, differences = zip(*_along_axes(nodes, image), strict=True)
    return np.concatenate(pairs, axis=1), np.concatenate(differences)


def _along_axes(
    nodes: npt.NDArray[np.int32], image: npt.NDArray[np.floating]
) -> Iterator[tuple[Pairs, npt.NDArray[np.float64]]]:
    for axis in range(3):
        by_axis = np.moveaxis(nodes, axis, 0)
        difference = np.abs(np.diff(np.moveaxis(image, axis, 0).astype(np.float64), axis=0))
        yield np.stack([by_axis[:-1].ravel(), by_axis[1:].ravel()]), difference.ravel()
