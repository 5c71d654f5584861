"""What a user has without a network: an interactive graph cut, seeded with the same clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.baselines.min_cut import min_cut
from deepgrow3d_app.evaluation.baselines.neighbours import Pairs, neighbour_pairs
from deepgrow3d_app.evaluation.baselines.region import BACKGROUND, FOREGROUND, ClickRegion, Image, Seeds
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.volume.volume import Mask, Volume

STEP_LENGTH = 0.005
"""Geodesic length of a step through homogeneous tissue; a step across an edge is longer by its height."""

HISTOGRAM_BINS = 64
PARZEN_SIGMA = 0.04
DENSITY_FLOOR = 0.01
MAX_LOG_RATIO = 4.0


@dataclass(frozen=True, slots=True)
class GraphCut:
    """Graph cut (Boykov & Jolly, ICCV 2001) with geodesic distances to the clicks (Price et al., CVPR 2010).

    Neighbouring voxels are hard to divide where their intensities are similar (the boundary term). Each
    voxel prefers the side whose seeds are nearer along a path of similar intensities, and the side whose
    intensities it has (the regional term). Without the geodesic part, one click has no scale: the cut
    claims all that looks alike, or next to nothing. What is not connected to a foreground click is dropped.

    Chosen with ``benchmarks/tune_baselines.py`` on 23 structures of ``ct-slab``, ``mr-abdomen``, ``ct-aorta`` and
    ``ct-spleen8``. Mean Dice after 1, 5 and 15 clicks, and over all 15; it hardly depends on the parameters, but
    for the intensities, without which it is worse::

        as below             0.598  0.743  0.834  0.772
        boundary_weight 0.5  0.585  0.758  0.840  0.768
        boundary_weight 2    0.609  0.764  0.824  0.765
        boundary_sigma 0.02  0.589  0.772  0.807  0.767
        boundary_sigma 0.08  0.586  0.780  0.799  0.781
        intensity_weight 0   0.504  0.738  0.820  0.738
        intensity_weight 1   0.600  0.720  0.835  0.760
        extent_mm 180        0.575  0.773  0.839  0.775
        extent_mm 300        0.580  0.729  0.827  0.762
        voxel_count 40^3     0.616  0.714  0.835  0.754
        voxel_count 64^3     0.596  0.773  0.838  0.779

    Attributes:
        boundary_weight: cost of a cut between two equal voxels, where the geodesic preference is -1 to +1.
        boundary_sigma: difference in intensity at which that cost has fallen to 0.61, in a range of 2.
        intensity_weight: of the intensities in the regional term.
        extent_mm: edge of the region around the clicks.
        voxel_count: that the region is divided into.
    """

    boundary_weight: float = 1.0
    boundary_sigma: float = 0.04
    intensity_weight: float = 0.5
    extent_mm: float = 240.0
    voxel_count: int = 48**3

    @property
    def record(self) -> MethodRecord:
        """Its name and parameters."""
        return MethodRecord(
            "graph cut",
            {
                "boundary_weight": str(self.boundary_weight),
                "boundary_sigma": str(self.boundary_sigma),
                "intensity_weight": str(self.intensity_weight),
                "extent_mm": str(self.extent_mm),
                "voxel_count": str(self.voxel_count),
            },
        )

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """See :class:`~deepgrow3d_app.evaluation.protocol.Method`; the previous mask is not used."""
        del previous
        region = ClickRegion.around(volume, clicks, self.extent_mm, self.voxel_count)
        inside = self._cut(region.image, region.seeds)
        return region.restore(np.where(inside, 0.5, -0.5))

    def _cut(self, image: Image, seeds: Seeds) -> npt.NDArray[np.bool_]:
        pairs, differences = neighbour_pairs(image)
        preference = geodesic_preference(pairs, differences, seeds)
        preference += self.intensity_weight * intensity_preference(image, seeds)
        # Dearer than to cut off a seed from its six neighbours: Boykov and Jolly's K.
        certain = 1.0 + 6.0 * self.boundary_weight
        preference[seeds == FOREGROUND] = certain
        preference[seeds == BACKGROUND] = -certain
        costs = self.boundary_weight * np.exp(-0.5 * (differences / self.boundary_sigma) ** 2)
        inside = min_cut(pairs, costs, preference)
        parts = cc3d.connected_components(inside.astype(np.uint8), connectivity=6)
        clicked = np.unique(parts[seeds == FOREGROUND])
        return np.isin(parts, clicked[clicked > 0])


def geodesic_preference(pairs: Pairs, differences: npt.NDArray[np.float64], seeds: Seeds) -> npt.NDArray[np.float64]:
    """(b - f) / (b + f) of the geodesic distances f to the foreground and b to the background seeds.

    The length of a path is the sum of the differences in intensity along it, and ``STEP_LENGTH`` a step.

    Args:
        pairs: the neighbours.
        differences: of their intensities, (pairs,).
        seeds: (i, j, k), with at least one of either kind.

    Returns:
        float64 (i, j, k), from -1 at the background seeds to +1 at the foreground seeds.
    """
    graph = csr_array((STEP_LENGTH + differences, (pairs[0], pairs[1])), shape=(seeds.size, seeds.size))
    to_foreground, to_background = (
        dijkstra(graph, directed=False, indices=np.flatnonzero(seeds == kind), min_only=True)
        for kind in (FOREGROUND, BACKGROUND)
    )
    preference = (to_background - to_foreground) / (to_background + to_foreground)
    return np.asarray(preference.reshape(seeds.shape))


def intensity_preference(image: Image, seeds: Seeds) -> npt.NDArray[np.float64]:
    """How much more likely an intensity is under the foreground clicks than elsewhere.

    The log ratio of two Parzen densities, clipped and scaled to -1 ... +1. "Elsewhere" is the whole
    region and, once there are background clicks, in equal parts these: one that fell on tissue like the
    foreground's makes intensities count for little.

    Args:
        image: (i, j, k), -1 to +1.
        seeds: (i, j, k).
    """
    inner = (slice(1, -1),) * 3
    clicked_background = image[inner][seeds[inner] == BACKGROUND]
    foreground, elsewhere = parzen_density(image[seeds == FOREGROUND]), parzen_density(image)
    if clicked_background.size > 0:
        elsewhere = (elsewhere + parzen_density(clicked_background)) / 2
    log_ratio = np.log((foreground + DENSITY_FLOOR) / (elsewhere + DENSITY_FLOOR))
    preference = np.clip(log_ratio / MAX_LOG_RATIO, -1.0, 1.0)
    bins = ((image + 1.0) * (HISTOGRAM_BINS / 2)).astype(np.intp).clip(0, HISTOGRAM_BINS - 1)
    return np.asarray(preference[bins])


def parzen_density(intensities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Density of at least one intensity from -1 to +1 in ``HISTOGRAM_BINS`` equal bins; it integrates to 1."""
    histogram, _ = np.histogram(intensities, bins=HISTOGRAM_BINS, range=(-1.0, 1.0))
    bin_width = 2.0 / HISTOGRAM_BINS
    density = histogram / (histogram.sum() * bin_width)
    return np.asarray(gaussian_filter1d(density, PARZEN_SIGMA / bin_width, mode="reflect"))
