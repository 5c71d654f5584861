"""What a user has without a network: the random walker of scikit-image, seeded with the same clicks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from skimage.segmentation import random_walker

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.model.intensity import IntensityWindow
from deepgrow3d_app.model.region import bounded_zoom
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.geometry import AxisOrder
from deepgrow3d_app.volume.volume import Mask, Volume

FOREGROUND, BACKGROUND = 1, 2
REGION = ModelSpec(patch_shape=(56, 56, 56), spacing_mm=(4.3, 4.3, 4.3), channels=(1,))  # there is no network


@dataclass(frozen=True, slots=True)
class ScikitWalker:
    """The random walker (Grady, PAMI 2006) of scikit-image on a region of 240 mm around the clicks, at 4.3 mm.

    Every click seeds a cube of 3 voxels; the border of the region seeds the background, without which a
    single foreground click would claim everything. Its least conductance is 1e-10, which leaves what lies
    behind a sharp edge all but cut off from every seed, and its equations badly conditioned:
    :class:`~deepgrow3d_app.evaluation.baselines.random_walker.RandomWalker` is the method with that mended.

    Attributes:
        beta: how strongly a difference in intensity holds the walker back. Chosen among 300, 1000 and 3000 for
            liver and spleen of another CT and an MR; scikit-image's own 130 leaks through their borders.
        spec: the region's voxels and the window of intensities.
    """

    beta: float = 3000.0
    spec: ModelSpec = REGION

    @property
    def record(self) -> MethodRecord:
        """Its name and parameters."""
        return MethodRecord("scikit-image walker", {"beta": str(self.beta), "spacing_mm": str(self.spec.spacing_mm)})

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        """See :class:`~deepgrow3d_app.evaluation.protocol.Method`; the previous mask is not used."""
        del previous
        spec = self.spec
        order = AxisOrder.to_ras(volume.affine)
        image = order.apply(volume.array)
        spacing_mm = order.apply_to_spacing(volume.spacing_mm)
        indices = [order.apply_to_index(click.index, volume.shape) for click in clicks]
        middle = (np.min(indices, axis=0) + np.max(indices, axis=0)) / 2
        zoom = bounded_zoom(spec, 1.0, image.shape, spacing_mm)
        di, dj, dk = (edge * zoom for edge in spec.spacing_mm)
        roi = Roi.around(
            (float(middle[0]), float(middle[1]), float(middle[2])),
            spec.patch_shape,
            (di, dj, dk),
            (image.shape[0], image.shape[1], image.shape[2]),
            spacing_mm,
        )
        window = IntensityWindow.of(volume, spec.window_hu, spec.compress_tails)
        patch = window.normalise(roi.crop(image, window.darkest)).clamp(-1, 1).numpy()
        seeds = np.zeros(patch.shape, dtype=np.int8)
        for axis in range(3):
            for face in (0, -1):
                np.moveaxis(seeds, axis, 0)[face] = BACKGROUND
        centres = []
        for click, index in zip(clicks, indices, strict=True):
            i, j, k = (
                min(max(round(position), 1), extent - 2)
                for position, extent in zip(roi.to_patch(index), patch.shape, strict=True)
            )
            seeds[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = FOREGROUND if click.is_positive else BACKGROUND
            centres.append((i, j, k))
        if not (seeds == FOREGROUND).any():  # all covered by later clicks: the whole region would be the structure
            for click, centre in zip(clicks, centres, strict=True):
                seeds[centre] = FOREGROUND if click.is_positive else seeds[centre]
        with warnings.catch_warnings():
            # scikit-image remarks on every call that a solver that is not installed would be faster.
            warnings.simplefilter("ignore")
            probability = random_walker(patch, seeds, beta=self.beta, mode="cg_j", tol=1e-2, return_full_prob=True)
        mask = order.undo(roi.restore(torch.from_numpy((probability[0] - 0.5).astype(np.float32))).full())
        for click in clicks:
            mask[click.index] = click.is_positive
        return mask
