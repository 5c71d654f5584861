"""Annotators at work: each on a patch of his own, clicking where the network's last answer is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from deepgrow3d_app.click.batched import Policy, next_clicks
from deepgrow3d_app.model.inputs import batched_inputs, network_inputs
from deepgrow3d_app.training.patches import Patches
from deepgrow3d_app.training.plan import TrainingPlan
from deepgrow3d_app.training.randomness import Stream, generator_of
from deepgrow3d_app.volume.geometry import Index

MISS_MM = (1.0, 6.0)
"""Least and greatest standard deviation, along each axis, of a hand that misses."""


@dataclass(slots=True)
class Annotation:
    """What an annotator has done on his patch, but for its voxels.

    Attributes:
        slot: his place in the batch over all processes.
        number: of his patch.
        policy: how he chooses his clicks.
        miss_voxels: standard deviation along each axis by which he misses, if he is one who misses.
        rounds: answers that he has seen.
        rounds_in_all: after so many he leaves the patch.
        foreground, background: his clicks.
    """

    slot: int
    number: int
    policy: Policy
    miss_voxels: float
    rounds: int
    rounds_in_all: int
    foreground: list[Index] = field(default_factory=list)
    background: list[Index] = field(default_factory=list)


class AnnotationBatch:
    """The annotators of this process, and the voxels of their patches on its device.

    Nothing depends on which other patches are in the batch, or in this process: all randomness of a click is
    drawn from the recipe's seed, the slot, the number of the patch and that of the round. So an annotation is
    continued exactly from a few numbers and its mask, in this process or in another one.

    Args:
        patches: endless supply.
        plan: what the network is fed with, and how annotators click.
        slots: which of the whole batch are here.
        device: where images, truths and masks lie.
    """

    def __init__(self, patches: Patches, plan: TrainingPlan, slots: Sequence[int], device: torch.device) -> None:
        self.patches = patches
        self.spec = plan.spec
        self.recipe = plan.recipe
        self.device = device
        shape = (len(slots), *plan.spec.patch_shape)
        self.images = torch.zeros(shape, device=device)
        self.truths = torch.zeros(shape, dtype=torch.bool, device=device)
        self.masks = torch.zeros(shape, dtype=torch.bool, device=device)
        self.are_new = torch.zeros(len(slots), dtype=torch.bool, device=device)
        patches.expect(slots, 0)
        self.annotations = [Annotation(slot, -1, Policy.DEEPEST, 0.0, 0, 0) for slot in slots]
        for place in range(len(slots)):
            self._begin(place, number=0)

    def click(self) -> None:
        """The next click of every annotator; a mask without fault gets none."""
        generators = [self._generator(annotation, Stream.CLICK) for annotation in self.annotations]
        clicks = next_clicks(
            self.truths,
            self.masks,
            [annotation.foreground + annotation.background for annotation in self.annotations],
            [annotation.policy for annotation in self.annotations],
            [annotation.miss_voxels for annotation in self.annotations],
            generators,
            self.spec.spacing_mm,
        )
        for annotation, click in zip(self.annotations, clicks, strict=True):
            if click is not None:
                (annotation.foreground if click.is_positive else annotation.background).append(click.index)

    def inputs(self) -> Tensor:
        """What the network sees: float32 (slots, channels, i, j, k)."""
        previous = self.masks.float()
        for place, annotation in enumerate(self.annotations):
            if self._generator(annotation, Stream.FORGETTING).random() < self.recipe.forget_probability:
                previous[place] = 0.0
        foreground = [annotation.foreground for annotation in self.annotations]
        background = [annotation.background for annotation in self.annotations]
        if self.device.type != "cpu":
            return batched_inputs(self.images, foreground, background, previous, self.spec)
        patches = zip(self.images, foreground, background, previous, strict=True)
        return torch.stack([network_inputs(*patch, self.spec) for patch in patches])

    def answer(self, masks: Tensor) -> dict[int, list[float]]:
        """Show the annotators the network's answer, bool (slots, i, j, k); some leave for a new patch.

        Returns:
            The Dice of these masks, by the number of clicks.
        """
        overlap = (masks & self.truths).sum(dim=(1, 2, 3))
        total = masks.sum(dim=(1, 2, 3)) + self.truths.sum(dim=(1, 2, 3))
        dice: dict[int, list[float]] = {}
        for place, value in enumerate((2 * overlap / total).tolist()):
            annotation = self.annotations[place]
            dice.setdefault(len(annotation.foreground) + len(annotation.background), []).append(value)
            self.masks[place] = masks[place]
            annotation.rounds += 1
            if annotation.rounds >= annotation.rounds_in_all:
                self._begin(place, annotation.number + 1)
        return dice

    def leave(self) -> None:
        """All annotators go on to new patches: something was wrong with these."""
        for place, annotation in enumerate(self.annotations):
            self._begin(place, annotation.number + 1)

    def state(self) -> list[dict[str, object]]:
        """What :meth:`restore` needs: plain numbers and packed bits, one object a slot."""
        return [
            {
                "slot": annotation.slot,
                "number": annotation.number,
                "policy": annotation.policy.value,
                "miss_voxels": annotation.miss_voxels,
                "rounds": annotation.rounds,
                "rounds_in_all": annotation.rounds_in_all,
                "foreground": annotation.foreground,
                "background": annotation.background,
                "mask": torch.from_numpy(np.packbits(mask.cpu().numpy())),
            }
            for annotation, mask in zip(self.annotations, self.masks, strict=True)
        ]

    def restore(self, states: Sequence[dict[str, object]]) -> None:
        """Go on from what :meth:`state` gave, of any number of slots that has these among them."""
        known = {state["slot"]: dict(state) for state in states}
        for place, annotation in enumerate(self.annotations):
            state = known[annotation.slot]
            packed = state.pop("mask")
            assert isinstance(packed, Tensor)  # noqa: S101 - as ``state`` wrote it
            policy = Policy(state.pop("policy"))
            self.annotations[place] = Annotation(policy=policy, **state)  # type: ignore[arg-type]
            bits = np.unpackbits(packed.numpy(), count=self.masks[place].numel()).astype(bool)
            self.masks[place] = torch.from_numpy(bits.reshape(self.masks[place].shape)).to(self.device)
        for annotation in self.annotations:  # before the first is waited for: where others draw, they draw at once
            self.patches.expect([annotation.slot], annotation.number)
        for place in range(len(self.annotations)):
            self._load_patch(place)

    def _begin(self, place: int, number: int) -> None:
        """A new annotator with a new patch."""
        slot = self.annotations[place].slot
        generator = generator_of(Stream.ANNOTATOR, self.recipe.seed, slot, number)
        rounds = int(generator.integers(1, self.recipe.max_clicks + 1))
        policy = self.recipe.policies.draw(generator)
        self.annotations[place] = Annotation(slot, number, policy, 0.0, 0, rounds)
        self.masks[place] = False
        edge_mm = self._load_patch(place)
        self.annotations[place].miss_voxels = float(generator.uniform(*MISS_MM)) / edge_mm
        if generator.random() < self.recipe.staying_share:
            self.annotations[place].rounds_in_all = self.recipe.max_clicks

    def _load_patch(self, place: int) -> float:
        """Its voxels, to the device; returns their edge in mm."""
        annotation = self.annotations[place]
        patch = self.patches.draw(annotation.slot, annotation.number)
        self.images[place] = patch.image.to(self.device)
        self.truths[place] = patch.truth.to(self.device)
        self.are_new[place] = patch.is_new
        return patch.edge_mm

    def _generator(self, annotation: Annotation, stream: Stream) -> np.random.Generator:
        return generator_of(stream, self.recipe.seed, annotation.slot, annotation.number, annotation.rounds)
