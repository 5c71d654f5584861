"""Patches to learn from: cut out of real cases as the server would cut them, or made up.

A patch of a real case goes through the same :class:`~deepgrow3d_app.model.roi.Roi` that serves clicks,
so that training and serving see the same geometry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.model.region import bounded_zoom, least_zoom, patch_edges_mm
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.augment import change_appearance, coarsen, enhancement, turn, warp
from deepgrow3d_app.training.cases import CasePool, Structure, TrainingCase
from deepgrow3d_app.training.phantom import paste_structure, random_scene, with_contents
from deepgrow3d_app.training.plan import TrainingPlan
from deepgrow3d_app.training.randomness import Stream, generator_of
from deepgrow3d_app.volume.volume import Mask

MIN_TARGET_VOXELS = 40
MAX_ATTEMPTS = 50
FILLED_SHARES = (0.14, 1.3)
"""How much of the region's longest edge a structure takes up: least and most. Above 1, it is cut off."""
UNSTRETCHED_SHARE = 0.3
ENHANCE_PROBABILITY = 0.4
FILL_PROBABILITY = 0.08
"""Never together with enhancement. On an MR, gas is darker than anything that it shows."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A network-sized image and the structure to be segmented in it.

    Attributes:
        image: float32 (i, j, k), normalised intensities.
        truth: bool (i, j, k), never empty.
        edge_mm: of its voxels, on average over the axes; of a made-up scene, any that a zoom could give.
        is_new: whether the structure is a labelled one of the first folder.
    """

    image: Tensor
    truth: Tensor
    edge_mm: float
    is_new: bool = False


class Patches(Protocol):
    """Where annotators get their patches from."""

    def expect(self, slots: Iterable[int], number: int) -> None:
        """Told which patches :meth:`draw` is about to be asked for."""

    def draw(self, slot: int, number: int) -> Patch:
        """The patch ``number`` of a slot."""


class PatchSource:
    """An endless supply of patches. It has no state: equal numbers give equal patches, in whatever order.

    Of the synthetic patches of a plan, half lie in made-up scenes, half are pasted into real images.

    Args:
        pool: labelled cases.
        plan: the patch that the network sees, and how it is made.
    """

    def __init__(self, pool: CasePool, plan: TrainingPlan) -> None:
        self.pool = pool
        self.spec: ModelSpec = plan.spec
        self.recipe = plan.recipe

    def expect(self, slots: Iterable[int], number: int) -> None:
        """Nothing to do: patches are drawn when they are asked for."""

    def draw(self, slot: int, number: int) -> Patch:
        """The patch ``number`` that the annotator ``slot`` works on, with a target of ``MIN_TARGET_VOXELS`` or more.

        Raises:
            TrainingError: no target is large enough.
        """
        generator = generator_of(Stream.PATCH, self.recipe.seed, slot, number)
        for _ in range(MAX_ATTEMPTS):
            patch = self._draw_once(generator)
            if int(patch.truth.sum()) >= MIN_TARGET_VOXELS:
                if not self.recipe.is_augmented:
                    return patch
                image, truth = patch.image, patch.truth
                if generator.random() < self.recipe.turned_share:
                    image, truth = turn(image, truth, len(set(self.spec.spacing_mm)) == 1, generator)
                return dataclasses.replace(patch, image=change_appearance(image, generator), truth=truth)
        raise TrainingError(
            f"In {MAX_ATTEMPTS} patches there was no target of {MIN_TARGET_VOXELS} voxels or more: the structures are "
            f"small for the patch's voxels of {self.spec.spacing_mm} mm. Choose a spec with a finer spacing."
        )

    def _draw_once(self, generator: np.random.Generator) -> Patch:
        kind = generator.random()
        if kind < self.recipe.synthetic_share / 2:
            zoom = np.exp(generator.uniform(np.log(self.spec.min_zoom), np.log(self.spec.max_zoom)))
            edges_mm = np.array(self.spec.spacing_mm) * zoom
            image, truth = random_scene(self.spec.patch_shape, generator)
            if self.recipe.is_augmented:
                image, truth = coarsen(image, truth, tuple(edges_mm), generator)
            return Patch(image, truth, _mean(tuple(edges_mm)))
        case = self.pool.draw(generator)
        patch = self._cut(case, case.draw_structure(generator), generator)
        if kind < self.recipe.synthetic_share:
            return Patch(*paste_structure(patch.image, generator), patch.edge_mm)
        return dataclasses.replace(patch, is_new=self.pool.is_of_first_group(case))

    def _cut(self, case: TrainingCase, structure: Structure, generator: np.random.Generator) -> Patch:
        """A region about a structure, at a zoom that its size suggests, give or take."""
        low, high = np.array(structure.low), np.array(structure.high)
        size_mm = (high - low) * np.array(case.spacing_mm)
        region_mm = np.array(self.spec.patch_shape) * np.array(self.spec.spacing_mm)
        filled = np.exp(generator.uniform(*np.log(FILLED_SHARES)))
        # As fine as the server looks at late clicks; at earlier ones it is coarser, as other patches are.
        least = least_zoom(self.spec, self.recipe.max_clicks, case.spacing_mm)
        zoom = size_mm.max() / (filled * region_mm.max())
        zoom = bounded_zoom(self.spec, zoom, case.shape, case.spacing_mm, least)
        # A region is as wide as it is long until there is a mask to see the structure's shape from.
        is_stretched = generator.random() >= UNSTRETCHED_SHARE
        wanted_mm = size_mm / filled if is_stretched else region_mm * zoom
        edges_mm = np.array(patch_edges_mm(self.spec, zoom, wanted_mm, least))
        if self.recipe.is_augmented:
            edges_mm *= np.exp(generator.uniform(-0.2, 0.2, 3))
        # The first region is centred on a click, later ones on the mask: both are somewhere in its box.
        centre = low + generator.beta(2, 2, 3) * (high - low)
        roi = Roi.around(tuple(centre), self.spec.patch_shape, tuple(edges_mm), case.shape, case.spacing_mm)
        opened = case.open()
        image = case.window.normalise(roi.crop(opened.volume.array, case.window.darkest))
        truth = _crop_label(roi, opened.labels, structure.value)
        if self.recipe.is_augmented:
            chance = generator.random()
            if chance < ENHANCE_PROBABILITY:
                image = image + roi.crop_covered(enhancement(opened.labels[roi.source_box], generator), 0.0)
            elif chance < ENHANCE_PROBABILITY + FILL_PROBABILITY:
                image = with_contents(image, truth, generator)
            image, truth = coarsen(image, truth, tuple(edges_mm), generator)
            image, truth = warp(image, truth, generator)
        return Patch(image, truth, _mean(tuple(edges_mm)))


def _crop_label(roi: Roi, labels: Mask, value: int) -> Tensor:
    return roi.crop_covered(labels[roi.source_box] == value, 0.0) > 0.5


def _mean(spacing_mm: tuple[float, ...]) -> float:
    """Of the three edges: that of a cube of the same volume."""
    return float(np.prod(spacing_mm) ** (1 / 3))
