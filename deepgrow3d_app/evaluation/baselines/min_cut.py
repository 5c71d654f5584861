"""The minimum cut of a graph of voxels: which of them to call foreground at the least cost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from deepgrow3d_app.evaluation.baselines.neighbours import Pairs

CAPACITY_STEPS = 1000
"""Costs are counted in thousandths: the solver works on integers."""


def min_cut(
    pairs: Pairs, pair_costs: npt.NDArray[np.floating], preference: npt.NDArray[np.floating]
) -> npt.NDArray[np.bool_]:
    """The labelling that costs least, of two: true is foreground.

    A foreground voxel costs its ``-preference`` where that is negative, a background voxel its
    ``preference`` where that is positive, and each pair that is divided its pair cost.

    The cut is found as a maximum flow (Greig, Porteous & Seheult, 1989) by SciPy's Dinic solver, with
    costs rounded to 1 / ``CAPACITY_STEPS``. Of several equally cheap labellings it is the one with the
    fewest foreground voxels.

    Args:
        pairs: the neighbours.
        pair_costs: not negative, (pairs,).
        preference: (i, j, k), positive where a voxel looks like foreground.

    Returns:
        bool (i, j, k).
    """
    count = preference.size
    source, sink = count, count + 1
    wanted = np.rint(preference.ravel() * CAPACITY_STEPS).astype(np.int32)
    links = np.rint(pair_costs * CAPACITY_STEPS).astype(np.int32)
    foreground, background = np.flatnonzero(wanted > 0), np.flatnonzero(wanted < 0)
    capacities = np.concatenate([links, links, wanted[foreground], -wanted[background]])
    tails = np.concatenate([pairs[0], pairs[1], np.full(foreground.size, source), background])
    heads = np.concatenate([pairs[1], pairs[0], foreground, np.full(background.size, sink)])
    used = capacities > 0
    index = (tails[used].astype(np.int32), heads[used].astype(np.int32))
    graph = csr_array((capacities[used], index), shape=(count + 2, count + 2))
    residual = graph - maximum_flow(graph, source, sink).flow
    residual.eliminate_zeros()
    reached = np.zeros(count + 2, dtype=np.bool_)
    reached[breadth_first_order(residual, source, return_predecessors=False)] = True
    return reached[:count].reshape(preference.shape)
