"""A mask as people look at it: three slices through the clicks, with the outline drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.volume.geometry import AxisOrder
from deepgrow3d_app.volume.volume import Mask, Volume

CT_DISPLAY_HU = (-160.0, 240.0)
PLANES = ((2, "axial"), (1, "coronal"), (0, "sagittal"))
MASK_COLOUR = "#ff3b30"
TRUTH_COLOUR = "#34c759"
FOREGROUND_MARK = ("+", "#0a84ff")
BACKGROUND_MARK = ("_", "#ff9f0a")


def draw_mask(
    volume: Volume, mask: Mask, clicks: Sequence[Click], file: Path, truth: Mask | None = None, title: str = ""
) -> None:
    """Write a PNG with an axial, a coronal and a sagittal slice through the first foreground click.

    Args:
        volume: the image.
        mask: uint8 (i, j, k) on its stored grid; its outline is red.
        clicks: foreground clicks are plus signs, background clicks minus signs; those within 2 voxels
            of a slice are drawn on it.
        file: where the picture goes.
        truth: a reference to draw as a green outline.
        title: above the slices.
    """
    order = AxisOrder.to_ras(volume.affine)
    image = order.apply(volume.array).astype(np.float32) * volume.slope + volume.intercept
    low, high = CT_DISPLAY_HU if volume.is_ct else np.percentile(image[::4, ::4, ::2], (1, 99))
    outlines = [(order.apply(mask), MASK_COLOUR)]
    if truth is not None:
        outlines.insert(0, (order.apply(truth), TRUTH_COLOUR))
    marks = [(order.apply_to_index(click.index, volume.shape), click.is_positive) for click in clicks]
    through = next((index for index, is_positive in marks if is_positive), tuple(n // 2 for n in image.shape))
    edges_mm = order.apply_to_spacing(volume.spacing_mm)
    figure = Figure(figsize=(13, 4.8), layout="constrained", facecolor="black")
    for position, (axis, name) in enumerate(PLANES):
        across, up = (other for other in range(3) if other != axis)
        axes = figure.add_subplot(1, 3, position + 1)
        aspect = edges_mm[up] / edges_mm[across]
        axes.imshow(_slice(image, axis, through[axis]), cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect)
        for region, colour in outlines:
            drawn = _slice(region, axis, through[axis])
            if drawn.any():
                axes.contour(drawn, [0.5], colors=colour, linewidths=1.5)
        for index, is_positive in marks:
            if abs(index[axis] - through[axis]) <= 2:
                mark, colour = FOREGROUND_MARK if is_positive else BACKGROUND_MARK
                axes.plot(index[across], index[up], mark, color=colour, markersize=12, mew=2.5)
        # Radiological convention: the patient's right is on the left of the picture.
        if across == 0:
            axes.invert_xaxis()
        # People click with stored indices: the title gives the slice in those, not in RAS order.
        stored_axis = order.source_axes[axis]
        stored = volume.shape[stored_axis] - 1 - through[axis] if order.flips[axis] else through[axis]
        axes.set_title(f"{name}, {'ijk'[stored_axis]} = {stored}", color="white")
        axes.axis("off")
    figure.suptitle(title, color="white")
    figure.savefig(file, dpi=90)


def _slice(array: npt.NDArray[np.generic], axis: int, position: int) -> npt.NDArray[np.generic]:
    """The slice with its horizontal axis last, as a picture wants it."""
    plane: npt.NDArray[np.generic] = np.moveaxis(array, axis, 0)[position]
    return plane.T
