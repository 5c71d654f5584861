"""How large a region to look at: as large as the structure needs, and no larger.

A structure should fill a good part of the patch, whatever its size in mm: then the network sees an
adrenal gland and a liver at similar scales. The idea is nnInteractive's AutoZoom (Isensee et al.,
2025): look, and if the mask touches the border of the region, look again at a larger one. Here the
region also shrinks around a small structure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.boxed_mask import Box, bounding_box
from deepgrow3d_app.volume.geometry import Index, Shape, Spacing

GROWTH = 1.5
TOUCHING_SHARE = 0.005
FILLED_SHARE = 0.9
"""Of the region's edge, by the structure's longest. With 0.6, voxels were coarser, and late corrections less exact."""
TOO_SMALL_SHARE = 0.35
EARLY_DETAIL = ((3, 2.0), (6, 3.0))
"""(clicks, parts): up to so many clicks, a patch voxel is no finer than that part of the image's finest edge.

A first answer that is far too small would otherwise choose a tiny region in voxels that the image does not have,
and further clicks would hardly get out of it. Later on, the size is known, and fine voxels draw a better border.
"""


@dataclass(frozen=True, slots=True)
class Region:
    """A zoom level and the region it gives.

    Attributes:
        spec: patch, spacing and bounds of the zoom.
        zoom: patch voxels are ``spec.spacing_mm * zoom`` wide.
        roi: the region on the source grid (RAS order).
        spacing_mm: voxel edges of the source grid.
        clicks: source voxels that the region contains, as far as its largest zoom allows.
        may_shrink: false once it has been settled from a mask, or grown.
    """

    spec: ModelSpec
    zoom: float
    roi: Roi
    spacing_mm: Spacing
    clicks: tuple[Index, ...]
    may_shrink: bool


def first_region(
    spec: ModelSpec,
    source_shape: Sequence[int],
    spacing_mm: Spacing,
    clicks: Sequence[Index],
    box: Box | None,
) -> Region:
    """Where to look first: around the clicks and ``box``, that of the previous mask.

    Without a mask at zoom 1, unless the clicks are farther apart or the volume is smaller than that.
    """
    shape = (source_shape[0], source_shape[1], source_shape[2])
    low, high = np.min(clicks, axis=0), np.max(clicks, axis=0)
    if box is not None:
        low = np.minimum(low, [extent.start for extent in box])
        high = np.maximum(high, [extent.stop - 1 for extent in box])
    filled = _filling_zoom(spec, low, high, spacing_mm)
    zoom = max(1.0, filled) if box is None else filled
    return _region(spec, zoom, low, high, shape, spacing_mm, clicks, box is None)


def next_region(region: Region, logits: Tensor) -> Region | None:
    """Where to look again after ``logits`` (i, j, k), or ``None`` when this region fits the structure."""
    positive = (logits > 0).numpy()
    box = bounding_box(positive)
    if box is None:
        return None
    roi = region.roi
    start, step = np.array(roi.start), np.array(roi.step)
    low = start + (np.array([extent.start for extent in box]) + 0.5) * step
    high = start + (np.array([extent.stop for extent in box]) - 0.5) * step
    low = np.maximum(np.minimum(low, np.min(region.clicks, axis=0)), 0)
    high = np.minimum(np.maximum(high, np.max(region.clicks, axis=0)), np.array(roi.source_shape) - 1)
    filling = _filling_zoom(region.spec, low, high, region.spacing_mm)
    if _touches_border(positive, roi):
        zoom = region.zoom * GROWTH
    elif region.may_shrink and filling < region.zoom * TOO_SMALL_SHARE / FILLED_SHARE:
        zoom = filling
    else:
        return None
    wanted = _region(region.spec, zoom, low, high, roi.source_shape, region.spacing_mm, region.clicks, False)
    return None if wanted.zoom == region.zoom else wanted


def _region(
    spec: ModelSpec,
    zoom: float,
    low: np.ndarray,
    high: np.ndarray,
    shape: Shape,
    spacing_mm: Spacing,
    clicks: Sequence[Index],
    may_shrink: bool,
) -> Region:
    coarsest = bounded_zoom(spec, spec.max_zoom, shape, spacing_mm)
    zoom = min(max(bounded_zoom(spec, zoom, shape, spacing_mm), _early_zoom(spec, len(clicks), spacing_mm)), coarsest)
    di, dj, dk = (edge * zoom for edge in spec.spacing_mm)
    ci, cj, ck = (float(middle) for middle in (low + high) / 2)
    roi = Roi.around((ci, cj, ck), spec.patch_shape, (di, dj, dk), shape, spacing_mm)
    return Region(spec, zoom, roi, spacing_mm, tuple(clicks), may_shrink)


def bounded_zoom(spec: ModelSpec, zoom: float, shape: Sequence[int], spacing_mm: Spacing) -> float:
    """``zoom`` within the spec's bounds, and no larger than it takes to see the whole volume."""
    whole = max(
        extent * edge / (count * patch_edge)
        for extent, edge, count, patch_edge in zip(shape, spacing_mm, spec.patch_shape, spec.spacing_mm, strict=True)
    )
    return max(spec.min_zoom, min(zoom, spec.max_zoom, whole))


def _early_zoom(spec: ModelSpec, clicks: int, spacing_mm: Spacing) -> float:
    """The least zoom for so many clicks, by ``EARLY_DETAIL``; 0 where any will do."""
    parts = next((parts for bound, parts in EARLY_DETAIL if clicks <= bound), math.inf)
    return min(spacing_mm) / parts / min(spec.spacing_mm)


def _filling_zoom(spec: ModelSpec, low: np.ndarray, high: np.ndarray, spacing_mm: Spacing) -> float:
    """The zoom at which the box from ``low`` to ``high`` (source voxels) fills its share of the region."""
    size_mm = (high - low + 1) * np.array(spacing_mm)
    region_mm = np.array(spec.patch_shape) * np.array(spec.spacing_mm)
    return float((size_mm / (FILLED_SHARE * region_mm)).max())


def _touches_border(positive: np.ndarray, roi: Roi) -> bool:
    """Whether the mask reaches a face of the region behind which the volume goes on."""
    for axis in range(3):
        face_voxels = positive.size / positive.shape[axis]
        width = roi.step[axis] * roi.patch_shape[axis]
        goes_on = (roi.start[axis] > 0, roi.start[axis] + width < roi.source_shape[axis] - 1)
        for position, beyond in zip((0, -1), goes_on, strict=True):
            if beyond and positive.take(position, axis=axis).sum() > TOUCHING_SHARE * face_voxels:
                return True
    return False
