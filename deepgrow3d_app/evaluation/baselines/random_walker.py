"""What a user has without a network: a random walker, seeded with the same clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, dia_array
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import cg

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.baselines.neighbours import Pairs, neighbour_pairs
from deepgrow3d_app.evaluation.baselines.region import FOREGROUND, UNKNOWN, ClickRegion, Seeds
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.volume.volume import Mask, Volume

LEAST_CONDUCTANCE = 1e-3
"""Of the highest edge. It bounds how badly conditioned the equations are, and with it the time a click takes."""

TOLERANCE = 1e-2
MAX_ITERATIONS = 500


@dataclass(frozen=True, slots=True)
class RandomWalker:
    """Random walker (Grady, PAMI 2006): a voxel is foreground if a walk from it likely meets such a seed first.

    Not scikit-image's: there, the least conductance is 1e-10, and a click on a noisy region of 26 x 26 x 26
    voxels took 40 s; nor does its ``beta`` mean the same in two regions, being divided by their contrast.

    Chosen with ``benchmarks/tune_baselines.py`` on 23 structures of ``ct-slab``, ``mr-abdomen``, ``ct-aorta`` and
    ``ct-spleen8``. Mean Dice after 1, 5 and 15 clicks, and over all 15::

        as below          0.558  0.817  0.865  0.808
        sigma 0.01        0.528  0.750  0.853  0.775
        sigma 0.02        0.525  0.823  0.867  0.813
        sigma 0.03        0.488  0.828  0.869  0.807
        sigma 0.06        0.370  0.777  0.862  0.770
        extent_mm 180     0.452  0.774  0.856  0.773
        extent_mm 300     0.614  0.808  0.859  0.806
        voxel_count 40^3  0.621  0.808  0.860  0.810
        voxel_count 64^3  0.444  0.786  0.862  0.783

    Attributes:
        sigma: difference in intensity, in a range of 2, at which the walker crosses less easily by a factor of 0.61.
        extent_mm: edge of the region around the clicks.
        voxel_count: that the region is divided into.
    """

    sigma: float = 0.015
    extent_mm: float = 240.0
    voxel_count: int = 48**3

    @property
    def record(self) -> MethodRecord:
        """Its name and parameters."""
        return MethodRecord(
            "random walker",
            {"sigma": str(self.sigma), "extent_mm": str(self.extent_mm), "voxel_count": str(self.voxel_count)},
        )

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """See :class:`~deepgrow3d_app.evaluation.protocol.Method`; the previous mask is not used."""
        del previous
        region = ClickRegion.around(volume, clicks, self.extent_mm, self.voxel_count)
        pairs, differences = neighbour_pairs(region.image)
        conductances = np.exp(-0.5 * (differences / self.sigma) ** 2) + LEAST_CONDUCTANCE
        return region.restore(foreground_probability(pairs, conductances, region.seeds) - 0.5)


def foreground_probability(
    pairs: Pairs, conductances: npt.NDArray[np.floating], seeds: Seeds
) -> npt.NDArray[np.float64]:
    """How likely a walk that starts at a voxel meets a foreground seed before a background seed.

    That is the potential of a network of resistors whose seeds are held at 1 and 0, and so the solution
    of a Laplace equation; it is found by conjugate gradients to ``TOLERANCE``.

    Args:
        pairs: the neighbours.
        conductances: positive, (pairs,): how easily the walk goes from one to the other.
        seeds: (i, j, k), with at least one of either kind.

    Returns:
        float64 (i, j, k).
    """
    kinds = seeds.ravel()
    graph = csr_array((conductances, (pairs[0], pairs[1])), shape=(kinds.size, kinds.size))
    unknown = np.flatnonzero(kinds == UNKNOWN)
    probability = (kinds == FOREGROUND).astype(np.float64)
    if unknown.size > 0:
        rows = csr_array(laplacian(graph + graph.T))[unknown]
        inflow = -rows @ probability
        equations = rows[:, unknown]
        jacobi = dia_array((1.0 / equations.diagonal()[np.newaxis], [0]), shape=equations.shape)
        probability[unknown], _ = cg(equations, inflow, rtol=TOLERANCE, atol=0.0, maxiter=MAX_ITERATIONS, M=jacobi)
    return np.asarray(probability.reshape(seeds.shape))
