"""Patches to learn from: cut out of real cases as the server would cut them, or made up.

A patch of a real case goes through the same :class:`~deepgrow3d_app.model.roi.Roi` that serves clicks,
so that training and serving see the same geometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from deepgrow3d_app.model.region import bounded_zoom
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.augment import change_appearance, turn, warp
from deepgrow3d_app.training.cases import CasePool, Structure, TrainingCase
from deepgrow3d_app.training.phantom import paste_structure, random_scene

MIN_TARGET_VOXELS = 40
MAX_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Patch:
    """A network-sized image and the structure to be segmented in it.

    Attributes:
        image: float32 (i, j, k), normalised intensities.
        truth: bool (i, j, k), never empty.
    """

    image: Tensor
    truth: Tensor


class PatchSource:
    """An endless supply of patches.

    Args:
        pool: labelled cases.
        spec: the patch that the network sees.
        synthetic_share: how many of the patches have a made-up target: half of these in a made-up
            scene, half pasted into a real image.
        generator: source of all randomness.
    """

    def __init__(self, pool: CasePool, spec: ModelSpec, synthetic_share: float, generator: np.random.Generator) -> None:
        self.pool = pool
        self.spec = spec
        self.synthetic_share = synthetic_share
        self.generator = generator

    def draw(self) -> Patch:
        """A new patch with a target of at least ``MIN_TARGET_VOXELS``."""
        for _ in range(MAX_ATTEMPTS):
            image, truth = self._draw_once()
            if int(truth.sum()) >= MIN_TARGET_VOXELS:
                image, truth = turn(image, truth, self.generator)
                return Patch(change_appearance(image, self.generator), truth)
        raise RuntimeError("no target in 20 patches: the cases' structures are smaller than a patch voxel")

    def _draw_once(self) -> tuple[Tensor, Tensor]:
        kind = self.generator.random()
        if kind < self.synthetic_share / 2:
            return random_scene(self.spec.patch_shape, self.generator)
        case = self.pool.draw(self.generator)
        image, truth = warp(*self._cut(case, case.draw_structure(self.generator)), self.generator)
        if kind < self.synthetic_share:
            return paste_structure(image, self.generator)
        return image, truth

    def _cut(self, case: TrainingCase, structure: Structure) -> tuple[Tensor, Tensor]:
        """A region about a structure, at a zoom that its size suggests, give or take."""
        generator = self.generator
        low, high = np.array(structure.low), np.array(structure.high)
        size_mm = float(((high - low) * np.array(case.spacing_mm)).max())
        region_mm = np.array(self.spec.patch_shape) * np.array(self.spec.spacing_mm)
        filled = np.exp(generator.uniform(np.log(0.2), np.log(1.3)))
        zoom = bounded_zoom(self.spec, size_mm / (filled * region_mm.max()), case.image.shape, case.spacing_mm)
        stretch = np.exp(generator.uniform(-0.2, 0.2, 3)) * zoom
        edges = np.array(self.spec.spacing_mm) * stretch
        # The first region is centred on a click, later ones on the mask: both are somewhere in its box.
        centre = low + generator.beta(2, 2, 3) * (high - low)
        roi = Roi.around(tuple(centre), self.spec.patch_shape, tuple(edges), case.image.shape, case.spacing_mm)
        image = case.window.normalise(roi.crop(case.image, case.window.darkest))
        return image, _crop_label(roi, case, structure.value)


def _crop_label(roi: Roi, case: TrainingCase, value: int) -> Tensor:
    inside = np.zeros(case.labels.shape, dtype=np.uint8)
    box = roi.source_box
    inside[box] = case.labels[box] == value
    return roi.crop(inside, 0.0) > 0.5
