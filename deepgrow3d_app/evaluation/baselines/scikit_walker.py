"""What a user has without a network: the random walker of scikit-image, seeded with the same clicks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from skimage.segmentation import random_walker

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.baselines.region import BACKGROUND, FOREGROUND, ClickRegion
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.volume.volume import Mask, Volume

TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class ScikitWalker:
    """The random walker (Grady, PAMI 2006) as scikit-image has it.

    Its least conductance is 1e-10: what lies behind a sharp edge is all but cut off from every seed, so that a first
    click claims everything up to the skin, and the equations are badly conditioned.
    :class:`~deepgrow3d_app.evaluation.baselines.random_walker.RandomWalker` is the same method with that mended.

    Attributes:
        sigma: difference in intensity, in a range of 2, at which the walker crosses less easily by a factor of 0.61.
            With smaller ones, single clicks took up to half a minute.
        extent_mm: edge of the region around the clicks.
        voxel_count: that the region is divided into.
    """

    sigma: float = 0.12
    extent_mm: float = 240.0
    voxel_count: int = 48**3

    @property
    def record(self) -> MethodRecord:
        """Its name and parameters."""
        return MethodRecord(
            "scikit-image walker",
            {"sigma": str(self.sigma), "extent_mm": str(self.extent_mm), "voxel_count": str(self.voxel_count)},
        )

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """See :class:`~deepgrow3d_app.evaluation.protocol.Method`; the previous mask is not used."""
        del previous
        region = ClickRegion.around(volume, clicks, self.extent_mm, self.voxel_count)
        # scikit-image crosses a difference d with exp(-beta d^2 / (10 contrast)): undone, so that sigma means
        # the same in every region.
        contrast = float(region.image.std())
        beta = 10 * contrast / (2 * self.sigma**2)
        if contrast == 0 or not (region.seeds == 0).any():
            # It divides by the contrast, and wants something to solve.
            return region.restore(np.where(region.seeds == BACKGROUND, -1.0, 1.0))
        with warnings.catch_warnings():
            # It remarks on every call that a solver that is not installed would be faster.
            warnings.simplefilter("ignore")
            probability = random_walker(
                region.image, region.seeds, beta=beta, mode="cg_j", tol=TOLERANCE, return_full_prob=True
            )
        # Each is solved by itself, and both fall short of the truth by the tolerance: their difference does not.
        return region.restore(probability[FOREGROUND - 1] - probability[BACKGROUND - 1])
