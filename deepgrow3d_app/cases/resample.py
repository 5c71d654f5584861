"""A case on another grid: its axes in RAS order, its voxels as large as wanted, its voxels' places unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from deepgrow3d_app.cases.labelled_case import LabelledCase, structures_in
from deepgrow3d_app.errors import UnsupportedVolume
from deepgrow3d_app.volume.geometry import AxisOrder, Shape, Spacing
from deepgrow3d_app.volume.stored import MAX_VOXELS
from deepgrow3d_app.volume.volume import Mask

SAME_SPACING_SHARE = 1e-3
TIE_VOXELS = 1e-6


def in_ras_order(case: LabelledCase) -> LabelledCase:
    """``case`` with its axes reordered and flipped to be nearest to RAS; every voxel keeps its value and place."""
    volume = case.volume
    order = AxisOrder.to_ras(volume.affine)
    turned = replace(volume, array=order.apply(volume.array), affine=order.apply_to_affine(volume.affine, volume.shape))
    return replace(case, volume=turned, labels=order.apply(case.labels))


def resample(case: LabelledCase, spacing_mm: Spacing) -> LabelledCase:
    """``case`` with voxels of exactly ``spacing_mm``, along its own axes and around its own middle.

    The image is interpolated linearly, after a Gaussian along those axes that become coarser: what a coarse grid
    cannot hold would alias into it. Labels take the value of the nearest stored voxel. That keeps the expected
    volume of every structure, however thin, and one pass does for all of them. A linear interpolation of each
    structure, cut at 0.5, is smoother but rounds off whatever is a few voxels wide. Measured at 1 x 1 x 3 mm, on
    the eight structures of a CT angiography of 1.5 mm: they kept 84 to 98 % of their volume (median 93 %), by the
    nearest voxel 98 to 116 % (median 100 %).

    Args:
        case: any; bring it to RAS order first where that is wanted.
        spacing_mm: along the axes of ``case``.

    Raises:
        UnsupportedVolume: more than ``MAX_VOXELS`` voxels would be needed.
    """
    volume = case.volume
    steps = np.array(spacing_mm) / np.array(volume.spacing_mm)
    if np.abs(steps - 1).max() < SAME_SPACING_SHARE:
        return case
    # The whole number nearest to the extent: at either end, less than half a new voxel is added or lost.
    counts = np.maximum(1, np.rint(np.array(volume.shape) / steps)).astype(int)
    if (n_voxels := np.prod(counts, dtype=float)) > MAX_VOXELS:
        raise UnsupportedVolume(
            volume.name,
            f"at {spacing_mm} mm it would have {n_voxels:.3g} voxels, over the bound of {MAX_VOXELS}",
            "Choose a coarser spacing.",
        )
    shape: Shape = (int(counts[0]), int(counts[1]), int(counts[2]))
    first = (np.array(volume.shape) - 1) / 2 - (counts - 1) / 2 * steps  # where new voxel (0, 0, 0) lies, in old ones
    to_old = np.diag((*steps, 1.0))
    to_old[:3, 3] = first
    labels = _nearest(case.labels, shape, steps, first)
    resampled = replace(volume, array=_linear(volume.array, shape, steps, first), affine=volume.affine @ to_old)
    return replace(case, volume=resampled, labels=labels, structures=structures_in(labels, case.structures))


def _linear(
    array: npt.NDArray[np.int16], shape: Shape, steps: npt.NDArray[np.float64], first: npt.NDArray[np.float64]
) -> npt.NDArray[np.int16]:
    """``array`` at the old indices ``first + steps * new index``; beyond the border, the voxel at the border."""
    values = array.astype(np.float32)
    if (steps > 1).any():
        sigma = np.maximum(0.0, (steps - 1) / 2)  # as scikit-image's resize, in old voxels
        values = ndimage.gaussian_filter(values, sigma, mode="nearest")
    values = ndimage.affine_transform(values, steps, first, shape, order=1, mode="nearest")
    return np.asarray(np.rint(values), dtype=np.int16)


def _nearest(labels: Mask, shape: Shape, steps: npt.NDArray[np.float64], first: npt.NDArray[np.float64]) -> Mask:
    """``labels`` at the old indices nearest to ``first + steps * new index``; of two equally near, the lower one."""
    indices = [
        np.clip(np.ceil(start + step * np.arange(count) - 0.5 - TIE_VOXELS).astype(int), 0, extent - 1)
        for start, step, count, extent in zip(first, steps, shape, labels.shape, strict=True)
    ]
    return np.ascontiguousarray(labels[np.ix_(*indices)])
