"""A volume and clicks in, a mask out. No server, no files."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
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
from deepgrow3d_app.model.engine import Engine, TorchEngine
from deepgrow3d_app.model.inputs import network_inputs
from deepgrow3d_app.model.intensity import IntensityWindow
from deepgrow3d_app.model.region import Region, first_region, next_region
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.geometry import AxisOrder, Index
from deepgrow3d_app.volume.volume import Mask, Volume

MAX_PASSES = 4
CLICK_BALL_RADIUS = 1.5
CLICK_LOGIT = 8.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer to clicks.

    Attributes:
        mask: uint8 (i, j, k) on the volume's stored grid, 1 inside the structure. It contains every
            foreground click and no background click.
        region: where the network looked for the final answer, on the grid in RAS order.
        passes: forward passes that it took to find that region.
        crop_s, network_s, restore_s: seconds spent cutting and encoding, computing, and restoring.
    """

    mask: Mask
    region: Region
    passes: int
    crop_s: float
    network_s: float
    restore_s: float


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
    def predict(self, volume: Volume, clicks: Iterable[Click], previous: Mask | None = None) -> Prediction:
        """The mask of the structure that ``clicks`` point at.

        Args:
            volume: the image.
            clicks: all clicks on this structure so far, on the stored grid.
            previous: the mask before the latest click, on the stored grid; ``None`` at a cold start.

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
        source = _Source(
            image=order.apply(volume.array),
            window=IntensityWindow.of(volume, self.spec.window_hu, self.spec.compress_tails),
            foreground=[order.apply_to_index(c.index, volume.shape) for c in clicks if c.is_positive],
            background=[order.apply_to_index(c.index, volume.shape) for c in clicks if not c.is_positive],
            previous=None if previous is None else order.apply((previous > 0).view(np.uint8)),
        )
        region = first_region(
            self.spec,
            source.image.shape,
            order.apply_to_spacing(volume.spacing_mm),
            source.foreground + source.background,
            source.previous,
        )
        crop_s = network_s = 0.0
        passes = 0
        while True:
            passes += 1
            started = time.perf_counter()
            inputs = self._inputs(source, region.roi)
            encoded = time.perf_counter()
            logits = self.engine(inputs)
            crop_s += encoded - started
            network_s += time.perf_counter() - encoded
            wanted = next_region(region, logits) if passes < MAX_PASSES else None
            if wanted is None:
                break
            region = wanted
        started = time.perf_counter()
        # First axis fastest, as files store it: the mask can be written without a transposition.
        stored = np.zeros(volume.shape, dtype=np.uint8, order="F")
        _draw_obedient_mask(logits, region.roi, source, order.apply(stored))
        return Prediction(stored, region, passes, crop_s, network_s, time.perf_counter() - started)

    def _inputs(self, source: _Source, roi: Roi) -> Tensor:
        image = source.window.normalise(roi.crop(source.image, source.window.darkest))
        known = source.previous
        previous = torch.zeros(roi.patch_shape) if known is None else roi.crop(known, 0.0)
        foreground = [roi.to_patch(index) for index in source.foreground]
        background = [roi.to_patch(index) for index in source.background]
        return network_inputs(image, foreground, background, previous, self.spec)


@dataclass(frozen=True, slots=True)
class _Source:
    """What is known about the volume, all of it in RAS order."""

    image: npt.NDArray[np.int16]
    window: IntensityWindow
    foreground: list[Index]
    background: list[Index]
    previous: Mask | None


def _draw_obedient_mask(logits: Tensor, roi: Roi, source: _Source, mask: Mask) -> None:
    """Restore into ``mask`` (zeros, RAS order) an answer that agrees with the clicks, each voxel for certain.

    What the previous mask says of voxels beyond the region stays: nothing new is known about them.
    """
    if source.previous is not None:
        mask[...] = source.previous
        mask[roi.source_box] = 0
    for index in source.foreground:
        _obey(logits, roi.to_patch(index), 1.0)
    for index in source.background:
        _obey(logits, roi.to_patch(index), -1.0)
    roi.restore(logits, mask)
    for index in source.foreground:
        mask[index] = 1
    for index in source.background:
        mask[index] = 0


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
