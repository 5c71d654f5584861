"""A volume and clicks in, a mask out. No server, no files."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepgrow3d_app.click.click import Click, checked_clicks
from deepgrow3d_app.click.guidance import Point
from deepgrow3d_app.errors import LabelMismatch
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.correction import corrected
from deepgrow3d_app.model.engine import Engine, TorchEngine
from deepgrow3d_app.model.inputs import network_inputs
from deepgrow3d_app.model.intensity import IntensityWindow
from deepgrow3d_app.model.region import Region, first_region, next_region
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.model.suggestion import Suggestion, least_sure
from deepgrow3d_app.model.tissue import judged_by_tissue
from deepgrow3d_app.volume.boxed_mask import BoxedMask, around_voxel, intersection, relative, union
from deepgrow3d_app.volume.geometry import AxisOrder, Index, Spacing
from deepgrow3d_app.volume.volume import Mask, Volume

MAX_PASSES = 4
MAGNIFYING = 0.5
"""A further look starts from the mask of the one before where its zoom is at most this share of that one's."""
CLICK_BALL_RADIUS = 1.5
CLICK_LOGIT = 8.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer to clicks.

    Attributes:
        boxed: the mask on the volume's stored grid. It contains every foreground click and no background click.
        suggestion: where a further click would tell most; ``None`` where the network drew no border.
        region: where the network looked for the final answer, on the grid in RAS order.
        passes: forward passes that it took to find that region.
        device: what computed it, for people to read.
        crop_s, network_s, restore_s: seconds spent cutting and encoding, computing, and judging and restoring.
    """

    boxed: BoxedMask
    suggestion: Suggestion | None
    region: Region
    passes: int
    device: str
    crop_s: float
    network_s: float
    restore_s: float

    @property
    def mask(self) -> Mask:
        """The whole mask: uint8 (i, j, k) on the volume's stored grid, 1 inside the structure; a new array."""
        return self.boxed.full()


class Predictor:
    """Answers clicks with a trained network. Holds no state between calls and may be shared by threads.

    Args:
        spec: what the network is fed with.
        engine: computes it.
    """

    def __init__(self, spec: ModelSpec, engine: Engine) -> None:
        self.spec = spec
        self.engine = engine

    @classmethod
    def from_checkpoint(cls, path: Path, device: torch.device | None = None) -> Predictor:
        """The predictor of the checkpoint at ``path``.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        checkpoint = Checkpoint.load(path)
        return cls(checkpoint.spec, TorchEngine(checkpoint.network(), device))

    @torch.inference_mode()
    def predict(
        self,
        volume: Volume,
        clicks: Iterable[Click],
        previous: Mask | BoxedMask | None = None,
        latest: Collection[Click] = (),
    ) -> Prediction:
        """The mask of the structure that ``clicks`` point at.

        Args:
            volume: the image.
            clicks: all clicks on this structure so far, on the stored grid.
            previous: the mask before the latest click, on the stored grid; ``None`` at a cold start.
            latest: those of the clicks that are new since then; none where that is not known, if there are several.

        Raises:
            InvalidClicks: a click outside the volume, no foreground click, or contradictory clicks.
            LabelMismatch: ``previous`` has another shape than the volume.
        """
        clicks = checked_clicks(clicks, volume.shape)
        if previous is not None and previous.shape != volume.shape:
            raise LabelMismatch(
                f"The previous mask has the shape {previous.shape}, the image {volume.shape}. "
                "Send the mask that was returned for this image."
            )
        order = AxisOrder.to_ras(volume.affine)
        known = previous if previous is None or isinstance(previous, BoxedMask) else BoxedMask.of(previous)
        source = _Source(
            image=order.apply(volume.array),
            window=IntensityWindow.of(volume, self.spec.window_hu, self.spec.compress_tails),
            foreground=[order.apply_to_index(c.index, volume.shape) for c in clicks if c.is_positive],
            background=[order.apply_to_index(c.index, volume.shape) for c in clicks if not c.is_positive],
            previous=None if known is None or known.voxels == 0 else known.tight().reordered(order),
            latest=[order.apply_to_index(c.index, volume.shape) for c in (clicks if len(clicks) == 1 else latest)],
            spacing_mm=order.apply_to_spacing(volume.spacing_mm),
        )
        region = first_region(
            self.spec,
            source.image.shape,
            source.spacing_mm,
            source.foreground,
            None if source.previous is None else source.previous.box,
            source.background,
            source.unsettled(),
        )
        crop_s = network_s = 0.0
        passes = 0
        seen = source
        while True:
            passes += 1
            started = time.perf_counter()
            inputs = self._inputs(seen, region.roi)
            encoded = time.perf_counter()
            logits = self.engine(inputs)
            crop_s += encoded - started
            network_s += time.perf_counter() - encoded
            wanted = next_region(region, logits) if passes < MAX_PASSES else None
            if wanted is None:
                break
            if wanted.zoom <= MAGNIFYING * region.zoom:
                seen = seen.after_a_look(region.roi, logits)
            region = wanted
        started = time.perf_counter()
        logits = judged_by_tissue(logits, inputs[0].cpu(), region.roi.within_volume())
        clicked = [region.roi.to_patch(index) for index in source.foreground + source.background]
        suggestion = least_sure(logits, region.roi, clicked)  # before the clicks change the logits
        stored = _obedient_mask(logits, region.roi, source).reordered(order.inverse())
        if suggestion is not None:
            index = order.inverse().apply_to_index(suggestion.index, source.image.shape)
            is_inside = bool(stored.within(around_voxel(index)).any())
            suggestion = dataclasses.replace(suggestion, index=index, is_inside=is_inside)
        restore_s = time.perf_counter() - started
        return Prediction(stored, suggestion, region, passes, self.engine.device, crop_s, network_s, restore_s)

    def _inputs(self, source: _Source, roi: Roi) -> Tensor:
        device = self.engine.input_device
        image = source.window.normalise(roi.crop(source.image, source.window.darkest).to(device))
        known = source.previous
        previous = torch.zeros(roi.patch_shape) if known is None else roi.crop_covered(known.within(roi.source_box), 0)
        # Beyond the patch, a click would be drawn at its border, where it says something else.
        foreground = [roi.to_patch(index) for index in source.foreground if roi.holds(index)]
        foreground = foreground or [roi.to_patch(index) for index in source.foreground]
        background = [roi.to_patch(index) for index in source.background if roi.holds(index)]
        return network_inputs(image, foreground, background, previous.to(device), self.spec)


@dataclass(frozen=True, slots=True)
class _Source:
    """What is known about the volume, all of it in RAS order."""

    image: npt.NDArray[np.int16]
    window: IntensityWindow
    foreground: list[Index]
    background: list[Index]
    previous: BoxedMask | None
    latest: list[Index]
    spacing_mm: Spacing

    def after_a_look(self, roi: Roi, logits: Tensor) -> _Source:
        """This with what a first look has found as the previous mask, where there is none.

        From near, the next look then corrects it. With the click alone, it would begin anew, and a network that sees a
        whole structure from near draws far too little of it. From hardly nearer, beginning anew is the better.
        """
        if self.previous is not None:
            return self
        found = roi.restore(logits)
        return self if found.part.size == 0 else dataclasses.replace(self, previous=found.tight())

    def unsettled(self) -> list[Index]:
        """The clicks that the previous mask contradicts."""
        if self.previous is None:
            return []
        missed = [index for index in self.foreground if not self.previous.within(around_voxel(index)).any()]
        return missed + [index for index in self.background if self.previous.within(around_voxel(index)).any()]


def _obedient_mask(logits: Tensor, roi: Roi, source: _Source) -> BoxedMask:
    """An answer, in RAS order, that agrees with the clicks, each voxel for certain.

    What the previous mask says of voxels beyond the region stays: nothing new is known about them.
    """
    for index in source.foreground:
        _obey(logits, roi.to_patch(index), 1.0)
    for index in source.background:
        _obey(logits, roi.to_patch(index), -1.0)
    drawn = roi.restore(logits)
    clicked = [around_voxel(index) for index in source.foreground + source.background]
    box = union([*clicked, *(mask.box for mask in (drawn, source.previous) if mask is not None and mask.part.size)])
    part = drawn.within(box)
    if source.previous is not None:
        beyond = source.previous.within(box)
        covered = intersection(roi.source_box, box)
        if covered is not None:
            beyond[relative(covered, box)] = False
        part |= beyond
        count = len(source.foreground)
        voxels = [relative(place, box) for place in clicked]
        latest = [relative(around_voxel(index), box) for index in source.latest]
        before = source.previous.within(box)
        part = corrected(before, part, voxels[:count], voxels[count:], latest, source.spacing_mm)
    for place in clicked[: len(source.foreground)]:
        part[relative(place, box)] = True
    for place in clicked[len(source.foreground) :]:
        part[relative(place, box)] = False
    return BoxedMask(roi.source_shape, box, part).tight()


def _obey(logits: Tensor, point: Point, sign: float) -> None:
    """Raise (or lower) ``logits`` (i, j, k) in place within ``CLICK_BALL_RADIUS`` voxels of ``point``."""
    box = tuple(
        slice(max(0, math.floor(p - CLICK_BALL_RADIUS)), max(0, math.ceil(p + CLICK_BALL_RADIUS) + 1)) for p in point
    )
    near = logits[box]
    offsets = [
        torch.arange(extent.start, extent.start + count) - p
        for extent, count, p in zip(box, near.shape, point, strict=True)
    ]
    i, j, k = torch.meshgrid(*offsets, indexing="ij")
    ball = CLICK_LOGIT * (1 - (i**2 + j**2 + k**2).sqrt() / CLICK_BALL_RADIUS)
    near.copy_(torch.where(ball > 0, sign * torch.maximum(sign * near, ball), near))
