"""How large a region to look at: as large as the structure needs, and no larger.

A structure should fill a good part of the patch, whatever its size in mm: then the network sees an
adrenal gland and a liver at similar scales. The idea is nnInteractive's AutoZoom (Isensee et al.,
2025): look, and if the mask touches the border of the region, look again at a larger one. Here the
region also shrinks around a small structure, and is narrower across a long and thin one.
"""

from __future__ import annotations

import dataclasses
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
SHRINK_BELOW = 0.39
"""A region is looked at again at a finer zoom where that is less than this of its own."""
NEAR_MM = 20.0
NEAR_SHARE = 0.25
"""A background click is looked at where it is this near to the structure, in mm or in shares of its extent.

One far away, where a leak was taken back, says nothing of the rest, and would cost a small structure its detail.
"""
EARLY_CLICKS = 3
EARLY_DETAIL = 2.0
DETAIL = 3.0
"""A patch voxel is no finer than the image's finest edge by this, or, up to ``EARLY_CLICKS`` clicks, ``EARLY_DETAIL``.

A first answer that is far too small would otherwise choose a tiny region in voxels that the image does not have,
and further clicks would hardly get out of it. And as a click's map shrinks with the region, late clicks in a small
structure would be narrower than a stored voxel, and change little beside it.
"""


@dataclass(frozen=True, slots=True)
class Region:
    """A zoom level and the region it gives.

    Attributes:
        spec: patch, spacing and bounds of the zoom.
        zoom: patch voxels are ``spec.spacing_mm * zoom`` wide, along short axes less (see ``patch_edges_mm``).
        roi: the region on the source grid (RAS order).
        spacing_mm: voxel edges of the source grid.
        clicks: source voxels that the region contains, as far as its largest zoom allows.
        click_count: of all clicks, those far away too.
        unsettled: clicks that the previous mask contradicts: where to look if not all of the structure fits.
        may_shrink: false once it has been settled from a mask, or grown.
    """

    spec: ModelSpec
    zoom: float
    roi: Roi
    spacing_mm: Spacing
    clicks: tuple[Index, ...]
    click_count: int
    unsettled: tuple[Index, ...]
    may_shrink: bool


def first_region(
    spec: ModelSpec,
    source_shape: Sequence[int],
    spacing_mm: Spacing,
    foreground: Sequence[Index],
    box: Box | None,
    background: Sequence[Index] = (),
    unsettled: Sequence[Index] = (),
) -> Region:
    """Where to look first: around the clicks and ``box``, that of the previous mask.

    Without a mask at zoom 1, unless the clicks are farther apart or the volume is smaller than that.

    Args:
        spec: see :class:`Region`.
        source_shape, spacing_mm: of the volume in RAS order.
        foreground: at least one.
        box: of the previous mask.
        background: those far from both are left out.
        unsettled: see :class:`Region`.
    """
    shape = (source_shape[0], source_shape[1], source_shape[2])
    low, high = np.min(foreground, axis=0), np.max(foreground, axis=0)
    if box is not None:
        low = np.minimum(low, [extent.start for extent in box])
        high = np.maximum(high, [extent.stop - 1 for extent in box])
    margin = np.maximum(NEAR_MM / np.array(spacing_mm), NEAR_SHARE * (high - low + 1))
    near = [index for index in background if (low - margin <= index).all() and (index <= high + margin).all()]
    clicks = [*foreground, *near]
    low, high = np.minimum(low, np.min(clicks, axis=0)), np.maximum(high, np.max(clicks, axis=0))
    size_mm = (high - low + 1) * np.array(spacing_mm)
    zoom = _filling_zoom(spec, size_mm)
    if box is None:  # nothing is known of the structure's shape: nothing is stretched
        zoom = max(1.0, zoom)
        size_mm = np.array(spec.patch_shape) * np.array(spec.spacing_mm) * zoom
    count = len(foreground) + len(background)
    whole = Roi.around((0.0, 0.0, 0.0), spec.patch_shape, spec.spacing_mm, shape, spacing_mm)
    region = Region(spec, zoom, whole, spacing_mm, tuple(clicks), count, tuple(unsettled), may_shrink=box is None)
    return _at(region, zoom, (low + high) / 2, size_mm, shape)


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
    size_mm = (high - low + 1) * np.array(region.spacing_mm)
    zoom = _filling_zoom(region.spec, size_mm)
    touched = _touched_axes(positive, roi)
    if touched.any():
        region_mm = step * np.array(region.spacing_mm) * np.array(roi.patch_shape)
        size_mm = FILLED_SHARE * region_mm * np.where(touched, GROWTH, 1.0)
        zoom = _filling_zoom(region.spec, size_mm)
    elif not region.may_shrink or zoom >= region.zoom * SHRINK_BELOW:
        return None
    middle = (low + high) / 2
    wanted = _at(dataclasses.replace(region, may_shrink=False), zoom, middle, size_mm, roi.source_shape)
    return None if np.allclose(wanted.roi.step, roi.step) else wanted


def _at(region: Region, zoom: float, middle: np.ndarray, size_mm: np.ndarray, shape: Shape) -> Region:
    """``region`` at another zoom: ``size_mm`` wide or wider about ``middle``, as far as the bounds allow."""
    spec, spacing_mm = region.spec, region.spacing_mm
    least = least_zoom(spec, region.click_count, spacing_mm)
    zoom = bounded_zoom(spec, zoom, shape, spacing_mm, least)
    edges_mm = patch_edges_mm(spec, zoom, size_mm / FILLED_SHARE, least)
    if region.unsettled:
        does_not_fit = size_mm > np.array(edges_mm) * spec.patch_shape
        middle = np.where(does_not_fit, np.mean(region.unsettled, axis=0), middle)
    ci, cj, ck = (float(position) for position in middle)
    roi = Roi.around((ci, cj, ck), spec.patch_shape, edges_mm, shape, spacing_mm)
    return dataclasses.replace(region, zoom=zoom, roi=roi)


def patch_edges_mm(spec: ModelSpec, zoom: float, region_mm: np.ndarray, least_zoom: float = 0.0) -> Spacing:
    """Voxel edges of a patch at ``zoom``: finer by up to ``spec.stretch`` along axes on which less than all would do.

    Args:
        spec: its bounds hold for each axis.
        zoom: of the axis along which voxels are widest.
        region_mm: the extents along (i, j, k) that would do.
        least_zoom: a further bound for each axis.
    """
    enough = region_mm / (np.array(spec.patch_shape) * np.array(spec.spacing_mm))
    finest = min(zoom, max(zoom / spec.stretch, spec.min_zoom, least_zoom))
    di, dj, dk = (float(edge) for edge in np.array(spec.spacing_mm) * np.clip(enough, finest, zoom))
    return di, dj, dk


def bounded_zoom(spec: ModelSpec, zoom: float, shape: Sequence[int], spacing_mm: Spacing, least: float = 0.0) -> float:
    """``zoom`` within the spec's bounds, at least ``least``, but no larger than it takes to see the whole volume."""
    whole = max(
        extent * edge / (count * patch_edge)
        for extent, edge, count, patch_edge in zip(shape, spacing_mm, spec.patch_shape, spec.spacing_mm, strict=True)
    )
    coarsest = max(spec.min_zoom, min(spec.max_zoom, whole))
    return min(max(zoom, spec.min_zoom, least), coarsest)


def least_zoom(spec: ModelSpec, clicks: int, spacing_mm: Spacing) -> float:
    """The least zoom for so many clicks, by ``EARLY_DETAIL`` and ``DETAIL``."""
    parts = EARLY_DETAIL if clicks <= EARLY_CLICKS else DETAIL
    return min(spacing_mm) / parts / min(spec.spacing_mm)


def _filling_zoom(spec: ModelSpec, size_mm: np.ndarray) -> float:
    """The zoom at which a box of ``size_mm`` fills its share of the region."""
    region_mm = np.array(spec.patch_shape) * np.array(spec.spacing_mm)
    return float((size_mm / (FILLED_SHARE * region_mm)).max())


def _touched_axes(positive: np.ndarray, roi: Roi) -> np.ndarray:
    """Along which axes the mask reaches a face of the region behind which the volume goes on: bool (3,)."""
    touched = np.zeros(3, bool)
    for axis in range(3):
        face_voxels = positive.size / positive.shape[axis]
        width = roi.step[axis] * roi.patch_shape[axis]
        goes_on = (roi.start[axis] > 0, roi.start[axis] + width < roi.source_shape[axis] - 1)
        for position, beyond in zip((0, -1), goes_on, strict=True):
            if beyond and positive.take(position, axis=axis).sum() > TOUCHING_SHARE * face_voxels:
                touched[axis] = True
    return touched
