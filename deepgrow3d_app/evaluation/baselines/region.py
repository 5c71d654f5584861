"""The surroundings of the clicks as a classical method sees them: intensities and seeds, and the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from deepgrow3d_app.click.click import Click, checked_clicks
from deepgrow3d_app.click.guidance import Point
from deepgrow3d_app.model.intensity import IntensityWindow
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.volume.geometry import AxisOrder, Index, Shape, Spacing
from deepgrow3d_app.volume.volume import Mask, Volume

Image = npt.NDArray[np.float32]
Seeds = npt.NDArray[np.int8]

UNKNOWN, FOREGROUND, BACKGROUND = 0, 1, 2
WINDOW_HU = (-160.0, 440.0)
"""From fat to vessels full of contrast agent: these must not look like bone."""
SEED_RADIUS_VOXELS = 1.5
EXTENT_PER_SPREAD = 1.25


@dataclass(frozen=True, slots=True, eq=False)
class ClickRegion:
    """A cube around the clicks, as far as the volume goes, in isotropic voxels.

    The border of the region is background: without it, a single foreground click would claim everything.
    Where the region reaches an end of the volume, its border is a layer of air beyond that end, so that
    a structure that is cut by the end of the image may still touch it.

    Attributes:
        volume: the image that the clicks are on.
        clicks: without repetitions, on the stored grid.
        roi: the region on the volume's grid in RAS order.
        image: float32 (i, j, k) in RAS order, intensities from -1 to +1.
        seeds: int8 (i, j, k), ``FOREGROUND``, ``BACKGROUND`` or ``UNKNOWN``.
    """

    volume: Volume
    clicks: tuple[Click, ...]
    roi: Roi
    image: Image
    seeds: Seeds

    @classmethod
    def around(cls, volume: Volume, clicks: Sequence[Click], extent_mm: float, voxel_count: int) -> ClickRegion:
        """The region of a click.

        Args:
            volume: the image.
            clicks: on its stored grid.
            extent_mm: edge of the cube; it grows where the clicks lie farther apart.
            voxel_count: about how many voxels the region is divided into. A part of the volume that is
                smaller than the cube is therefore seen in finer voxels, though not in finer ones than
                it is stored in.

        Raises:
            InvalidClicks: a click outside the volume, no foreground click, or contradictory clicks.
        """
        clicks = checked_clicks(clicks, volume.shape)
        order = AxisOrder.to_ras(volume.affine)
        source = order.apply(volume.array)
        indices = [order.apply_to_index(click.index, volume.shape) for click in clicks]
        roi = _region(
            indices,
            (source.shape[0], source.shape[1], source.shape[2]),
            order.apply_to_spacing(volume.spacing_mm),
            extent_mm,
            voxel_count,
        )
        window = IntensityWindow.of(volume, WINDOW_HU, compress_tails=False)
        image = window.normalise(roi.crop(source, window.darkest)).clamp(-1.0, 1.0).numpy()
        points = [roi.to_patch(index) for index in indices]
        return cls(volume, clicks, roi, image, seeds_of(roi.patch_shape, points, [c.is_positive for c in clicks]))

    def restore(self, scores: npt.NDArray[np.floating]) -> Mask:
        """The mask on the volume's stored grid: uint8 (i, j, k).

        Whatever the scores say, a voxel with a foreground click is inside, and one with a background
        click outside.

        Args:
            scores: (i, j, k) of the region, positive inside the structure.
        """
        order = AxisOrder.to_ras(self.volume.affine)
        mask = order.undo(self.roi.restore(torch.from_numpy(scores.astype(np.float32))).full())
        for click in self.clicks:
            mask[click.index] = click.is_positive
        return mask


def seeds_of(shape: Shape, points: Sequence[Point], are_positive: Sequence[bool]) -> Seeds:
    """Balls of ``SEED_RADIUS_VOXELS`` around the clicks, and background on the border.

    Where balls meet, the nearest click decides: the order of the clicks means nothing.

    Args:
        shape: of the region.
        points: the clicks in voxels of the region.
        are_positive: their signs.
    """
    seeds = np.full(shape, BACKGROUND, dtype=np.int8)
    seeds[1:-1, 1:-1, 1:-1] = UNKNOWN
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    nearest = np.full(shape, SEED_RADIUS_VOXELS**2)
    for (pi, pj, pk), is_positive in zip(points, are_positive, strict=True):
        distance = (i - pi) ** 2 + (j - pj) ** 2 + (k - pk) ** 2
        nearer = distance < nearest
        nearest[nearer] = distance[nearer]
        seeds[nearer] = FOREGROUND if is_positive else BACKGROUND
    return seeds


def _region(
    indices: Sequence[Index], source_shape: Shape, spacing_mm: Spacing, extent_mm: float, voxel_count: int
) -> Roi:
    low, high = np.min(indices, axis=0), np.max(indices, axis=0)
    spread_mm = float(((high - low + 1) * spacing_mm).max())
    extent_mm = max(extent_mm, EXTENT_PER_SPREAD * spread_mm)
    covered_mm = [min(extent_mm, count * edge) for count, edge in zip(source_shape, spacing_mm, strict=True)]
    # The middle one of the stored edges: a thin slab must not be cut into voxels as fine as it is thin.
    edge_mm = max((math.prod(covered_mm) / voxel_count) ** (1 / 3), sorted(spacing_mm)[1])
    shape, start, step = [], [], []
    for middle, count, source_edge_mm in zip((low + high) / 2, source_shape, spacing_mm, strict=True):
        voxel = edge_mm / source_edge_mm
        width = voxel * math.ceil(min(extent_mm / edge_mm, count / voxel + 2))
        # Indices are voxel centres: the volume spans -0.5 ... count - 0.5, and one layer of air lies around it.
        lowest, highest = -0.5 - voxel, count - 0.5 + voxel - width
        fits = highest >= lowest
        start.append(min(max(float(middle) - width / 2, lowest), highest) if fits else (lowest + highest) / 2)
        shape.append(round(width / voxel))
        step.append(voxel)
    return Roi(
        (start[0], start[1], start[2]), (step[0], step[1], step[2]), (shape[0], shape[1], shape[2]), source_shape
    )
