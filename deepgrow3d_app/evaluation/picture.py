"""A mask as people look at it: three slices through one voxel, with outlines and clicks drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.evaluation.results import Trial
from deepgrow3d_app.evaluation.summary import Series
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.boxed_mask import Box, bounding_box
from deepgrow3d_app.volume.geometry import AxisOrder, Index, Scalar, Spacing
from deepgrow3d_app.volume.volume import Mask, Volume

Region = npt.NDArray[np.bool_]

CT_DISPLAY_HU = (-160.0, 240.0)
MARGIN_MM = 20.0
PANEL_INCH = 4.3
MASK_COLOUR = "#ff3b30"
MASK_WIDTH = 1.2
TRUTH_COLOUR = "#34c759"
TRUTH_WIDTH = 3.0  # wider than the mask's and below it: where both run along the same voxels, either is still seen
FOREGROUND_MARK = ("+", "#40a0ff")
BACKGROUND_MARK = ("_", "#ff9f0a")
MARK_REACH_VOXELS = 2
SCALE_BARS_MM = (1, 2, 5, 10, 20, 50, 100)
HALO = [withStroke(linewidth=3, foreground="black")]


@dataclass(frozen=True, slots=True)
class _Plane:
    """A slice of a volume in RAS order.

    Attributes:
        axis: looked along.
        sides: the axes that run across and up.
        name: for its title.
        left, top: the patient's side at these edges of the picture.
    """

    axis: int
    sides: tuple[int, int]
    name: str
    left: str
    top: str


PLANES = (
    _Plane(2, (0, 1), "axial", left="R", top="A"),
    _Plane(1, (0, 2), "coronal", left="R", top="S"),
    _Plane(0, (1, 2), "sagittal", left="P", top="S"),
)


@dataclass(frozen=True, slots=True)
class WorstPicture:
    """What the last answer of a trial looked like.

    Attributes:
        trial: what was annotated, and how it went.
        png: the picture, as :func:`draw_worst` makes it.
    """

    trial: Trial
    png: bytes


def worst_trials(series: Series, count: int) -> list[Trial]:
    """The ``count`` trials with the lowest Dice after the last click, the worst first."""
    return sorted(series.trials, key=lambda trial: trial.rounds[-1].dice)[:count]


def draw_worst(volume: Volume, truth: Region, mask: Mask, trial: Trial) -> WorstPicture:
    """Draw where the last answer is most wrong: the slices go through the deepest voxel of its largest error.

    Args:
        volume: the image of the trial's case.
        truth: bool (i, j, k), the structure on the stored grid, not empty; its outline is green.
        mask: uint8 (i, j, k), the last answer on the same grid; its outline is red.
        trial: whose clicks are drawn.
    """
    simulator = ClickSimulator(volume.spacing_mm)
    # Where nothing is wrong, the middle of the structure: that is where an untouched one is clicked.
    target = simulator.next_click(truth, mask != 0) or simulator.next_click(truth, np.zeros_like(truth))
    clicks = [Click(r.index, bool(r.is_positive)) for r in trial.rounds if r.index is not None]
    return WorstPicture(trial, mask_png(volume, mask, clicks, truth, None if target is None else target.index))


def draw_mask(
    volume: Volume,
    mask: Mask,
    clicks: Sequence[Click],
    file: Path,
    truth: Region | Mask | None = None,
    through: Index | None = None,
    title: str = "",
) -> None:
    """Write the picture of :func:`mask_png` to ``file``, or, on a full disk, nothing."""
    replace_file(file, io.BytesIO(mask_png(volume, mask, clicks, truth, through, title)))


def mask_png(
    volume: Volume,
    mask: Mask,
    clicks: Sequence[Click],
    truth: Region | Mask | None = None,
    through: Index | None = None,
    title: str = "",
) -> bytes:
    """A PNG with an axial, a coronal and a sagittal slice, cropped to what is drawn on them and its surroundings.

    Args:
        volume: the image.
        mask: uint8 (i, j, k) on its stored grid; its outline is red.
        clicks: foreground clicks are plus signs, background clicks minus signs; those within
            ``MARK_REACH_VOXELS`` of a slice are drawn on it.
        truth: a reference on the same grid, to draw as a green outline.
        through: the voxel (i, j, k) of the stored grid that the slices meet in; without it, the first
            foreground click, and without that one, the middle of the volume.
        title: above the slices.
    """
    order = AxisOrder.to_ras(volume.affine)
    if through is None:
        i, j, k = (n // 2 for n in volume.shape)
        through = next((click.index for click in clicks if click.is_positive), (i, j, k))
    scene = _Scene(
        image=order.apply(volume.array),
        slope=volume.slope,
        intercept=volume.intercept,
        mask=order.apply(mask) != 0,
        truth=None if truth is None else order.apply(truth) != 0,
        marks=[Click(order.apply_to_index(click.index, volume.shape), click.is_positive) for click in clicks],
        centre=order.apply_to_index(through, volume.shape),
        edges_mm=order.apply_to_spacing(volume.spacing_mm),
    )
    box = _field_of_view(scene)
    shown = _display_range(volume)
    sides_mm = [(side.stop - side.start) * edge for side, edge in zip(box, scene.edges_mm, strict=True)]
    tallest = max(sides_mm[plane.sides[1]] / sides_mm[plane.sides[0]] for plane in PLANES)
    top_inch = 0.65 if title else 0.35
    height_inch = PANEL_INCH * min(tallest, 1) + top_inch + 0.4
    # Grey, so that the air around a patient differs from what lies beyond the picture.
    figure = Figure(figsize=(3 * PANEL_INCH, height_inch), facecolor="#232327")
    figure.subplots_adjust(0.005, 0.4 / height_inch, 0.995, 1 - top_inch / height_inch, wspace=0.02)
    for position, plane in enumerate(PLANES):
        axes = figure.add_subplot(1, 3, position + 1)
        _draw_slice(axes, scene, plane, box, shown)
        # People click with stored indices: the title gives the slice in those, not in RAS order.
        stored_axis = order.source_axes[plane.axis]
        axes.set_title(f"{plane.name}, {'ijk'[stored_axis]} = {through[stored_axis]}", color="white")
    figure.legend(handles=_legend(scene), loc="lower center", ncols=4, frameon=False, labelcolor="white")
    if title:
        figure.suptitle(
            title, y=1 - 0.1 / height_inch, va="top", color="white", parse_math=False
        )  # a name may contain dollar signs
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90)
    return png.getvalue()


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """All that is drawn, in RAS order.

    Attributes:
        image, slope, intercept: as in :class:`~deepgrow3d_app.volume.volume.Volume`.
        mask, truth: bool on the same grid.
        marks: the clicks, with indices of this grid.
        centre: the voxel that the slices meet in.
        edges_mm: of a voxel.
    """

    image: npt.NDArray[np.int16]
    slope: float
    intercept: float
    mask: Region
    truth: Region | None
    marks: list[Click]
    centre: Index
    edges_mm: Spacing


def _draw_slice(axes: Axes, scene: _Scene, plane: _Plane, box: Box, shown: tuple[float, float]) -> None:
    """Draw one slice within ``box``; the physical values ``shown`` are black and white."""
    axis, (across, up) = plane.axis, plane.sides
    depth = scene.centre[axis] - box[axis].start
    aspect = scene.edges_mm[up] / scene.edges_mm[across]
    grey = _slice(scene.image[box], axis, depth) * scene.slope + scene.intercept
    axes.imshow(
        grey, cmap="gray", vmin=shown[0], vmax=shown[1], origin="lower", aspect=aspect, interpolation="bilinear"
    )
    axes.autoscale(False)  # nothing drawn below widens the field of view
    axes.axis("off")
    for region, colour, width in ((scene.truth, TRUTH_COLOUR, TRUTH_WIDTH), (scene.mask, MASK_COLOUR, MASK_WIDTH)):
        if region is not None and (inside := _slice(region[box], axis, depth)).any():
            # A rim of zeros closes the outline of what reaches the edge of the picture.
            x, y = (np.arange(-1, n + 1) for n in inside.shape[::-1])
            axes.contour(x, y, np.pad(inside, 1).astype(np.float32), [0.5], colors=colour, linewidths=width)
    for click in scene.marks:
        if abs(click.index[axis] - scene.centre[axis]) <= MARK_REACH_VOXELS:
            mark, colour = FOREGROUND_MARK if click.is_positive else BACKGROUND_MARK
            x, y = click.index[across] - box[across].start, click.index[up] - box[up].start
            axes.plot(x, y, mark, color=colour, markersize=12, mew=2.5, path_effects=HALO)
    # Radiological convention: the patient's right is on the left of the picture.
    if across == 0:
        axes.invert_xaxis()
    _annotate(axes, (box[across].stop - box[across].start) * scene.edges_mm[across], plane)


def _display_range(volume: Volume) -> tuple[float, float]:
    """The physical values shown black and white."""
    if volume.is_ct:
        return CT_DISPLAY_HU
    sample = volume.array[::4, ::4, ::2] * volume.slope + volume.intercept
    low, high = np.percentile(sample, (1, 99))
    return float(low), float(high)


def _field_of_view(scene: _Scene) -> Box:
    """The part of the grid to show: masks and clicks with ``MARGIN_MM`` around them, as far as the grid goes.

    No side is shorter than half the longest, so that a vessel does not become a strip.
    """
    regions = [scene.mask] if scene.truth is None else [scene.mask, scene.truth]
    occupied = [box for region in regions if (box := bounding_box(region)) is not None]
    points = [scene.centre, *(click.index for click in scene.marks)]
    first = np.min([*points, *([side.start for side in box] for box in occupied)], axis=0)
    last = np.max([*points, *([side.stop - 1 for side in box] for box in occupied)], axis=0)
    size_mm = (last - first + 1) * scene.edges_mm + 2 * MARGIN_MM
    size_mm = np.maximum(size_mm, size_mm.max() / 2)
    size = np.minimum(np.ceil(size_mm / scene.edges_mm).astype(int), scene.image.shape)
    start = np.clip((first + last + 1 - size) // 2, 0, scene.image.shape - size)
    i, j, k = (slice(int(begin), int(begin + extent)) for begin, extent in zip(start, size, strict=True))
    return i, j, k


def _annotate(axes: Axes, width_mm: float, plane: _Plane) -> None:
    """Write the patient's sides at the edges of a slice that is ``width_mm`` wide, and draw a scale bar."""

    def write(
        x: float, y: float, text: str, ha: Literal["left", "center"], va: Literal["center", "top", "bottom"]
    ) -> None:
        axes.text(x, y, text, color="white", ha=ha, va=va, transform=axes.transAxes, path_effects=HALO)

    write(0.02, 0.5, plane.left, "left", "center")
    write(0.5, 0.98, plane.top, "center", "top")
    length_mm = max((bar for bar in SCALE_BARS_MM if bar <= width_mm / 3), default=SCALE_BARS_MM[0])
    start, stop = 0.96 - length_mm / width_mm, 0.96
    axes.plot((start, stop), (0.04, 0.04), "w", linewidth=2, transform=axes.transAxes, path_effects=HALO)
    write((start + stop) / 2, 0.055, f"{length_mm} mm", "center", "bottom")


def _legend(scene: _Scene) -> list[Line2D]:
    """What the lines and marks of a picture mean."""
    lines = [Line2D([], [], color=MASK_COLOUR, linewidth=MASK_WIDTH, label="mask")]
    if scene.truth is not None:
        lines.insert(0, Line2D([], [], color=TRUTH_COLOUR, linewidth=TRUTH_WIDTH, label="truth"))
    for is_positive, name in ((True, "foreground click"), (False, "background click")):
        mark, colour = FOREGROUND_MARK if is_positive else BACKGROUND_MARK
        if any(click.is_positive == is_positive for click in scene.marks):
            lines.append(Line2D([], [], color=colour, marker=mark, markersize=10, mew=2.5, linestyle="", label=name))
    return lines


def _slice(array: npt.NDArray[Scalar], axis: int, position: int) -> npt.NDArray[Scalar]:
    """The slice with its horizontal axis last, as a picture wants it."""
    plane: npt.NDArray[Scalar] = np.moveaxis(array, axis, 0)[position]
    return plane.T
