"""Labelled cases as training wants them, and how often each is drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.labelled_case import voxel_counts
from deepgrow3d_app.cases.layouts.case_folder import find_case_folder
from deepgrow3d_app.cases.layouts.prepared_folder import find_prepared_folder
from deepgrow3d_app.cases.preparation import MIN_STRUCTURE_VOXELS
from deepgrow3d_app.cases.resample import in_ras_order
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.model.intensity import IntensityWindow
from deepgrow3d_app.model.roi import Roi
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.geometry import Spacing

SHARE_EXPONENT = 0.35
SIZE_EXPONENT = 0.25
COARSER_MM = ((3.0, 3.0, 3.0), (1.5, 1.5, 5.0))
"""Other scanners and protocols that a case can stand for: low resolution, and thick slices."""
MIN_COARSER_VOXELS = 20_000


@dataclass(frozen=True, slots=True)
class Structure:
    """One labelled structure of a case: its label value, its size, and its box on the case's grid."""

    value: int
    voxels: int
    low: tuple[int, int, int]
    high: tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingCase:
    """An image and its label map, both in RAS order.

    Attributes:
        image: int16 (i, j, k).
        labels: uint8 (i, j, k), 0 for background.
        spacing_mm: voxel edges.
        window: which stored values are which intensities.
        structures: those large enough to learn from.
    """

    image: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    spacing_mm: Spacing
    window: IntensityWindow
    structures: tuple[Structure, ...]

    def draw_structure(self, generator: np.random.Generator) -> Structure:
        """One at random, the larger ones somewhat more often."""
        weights = np.array([structure.voxels for structure in self.structures], float) ** SIZE_EXPONENT
        return self.structures[int(generator.choice(len(self.structures), p=weights / weights.sum()))]


def load_case(source: CaseSource, spec: ModelSpec) -> TrainingCase:
    """One case from its files; the arrays of a prepared case stay on disk, mapped into memory.

    Raises:
        InvalidInput: a file cannot be read.
        LabelMismatch: the labels do not lie on the image's grid.
        TrainingError: no structure is large enough.
    """
    stored = source.load()
    window = IntensityWindow.of(stored.volume, spec.window_hu, spec.compress_tails)
    case = in_ras_order(stored)
    labels = np.ascontiguousarray(case.labels)
    structures = _structures(labels)
    if not structures:
        raise TrainingError(
            f"'{source.labels}' has no structure of at least {MIN_STRUCTURE_VOXELS} voxels to learn from. "
            "Leave the case out."
        )
    image = np.ascontiguousarray(case.volume.array)
    return TrainingCase(image, labels, case.volume.spacing_mm, window, structures)


def _structures(labels: npt.NDArray[np.uint8]) -> tuple[Structure, ...]:
    counts = voxel_counts(labels)
    return tuple(
        Structure(value, int(counts[value]), tuple(s.start for s in box), tuple(s.stop for s in box))
        for value, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None and counts[value] >= MIN_STRUCTURE_VOXELS
    )


def coarser(case: TrainingCase, spacing_mm: Spacing) -> TrainingCase | None:
    """``case`` as a scanner with voxels of ``spacing_mm`` would have stored it, never finer than it is.

    Returns:
        ``None`` where that is nearly the same grid, or one too small to be worth learning from.
    """
    edges = tuple(max(new, old) for new, old in zip(spacing_mm, case.spacing_mm, strict=True))
    shape = tuple(
        max(1, round(n * old / new)) for n, old, new in zip(case.image.shape, case.spacing_mm, edges, strict=True)
    )
    whole = (shape[0], shape[1], shape[2])
    if np.prod(whole) < MIN_COARSER_VOXELS or np.prod(whole) > 0.7 * case.image.size:
        return None
    roi = Roi(
        (-0.5, -0.5, -0.5),
        tuple(old / new for old, new in zip(case.image.shape, whole, strict=True)),
        whole,
        case.image.shape,
    )
    image = roi.crop(case.image, 0.0).round().to(torch.int16).numpy()
    nearest = (
        ((np.arange(count) + 0.5) * step - 0.5).round().astype(int) for count, step in zip(whole, roi.step, strict=True)
    )
    labels = np.ascontiguousarray(case.labels[np.ix_(*nearest)])
    structures = _structures(labels)
    di, dj, dk = (step * edge for step, edge in zip(roi.step, case.spacing_mm, strict=True))
    return TrainingCase(image, labels, (di, dj, dk), case.window, structures) if structures else None


class CasePool:
    """Cases in groups (a data set each), drawn so that neither large nor rich sets drown the others.

    A group's share of the draws grows with its number of different structures to the power 0.35.
    """

    def __init__(self, groups: Sequence[Sequence[TrainingCase]]) -> None:
        if not groups:
            raise TrainingError("There is no case to train on. Name at least one case folder.")
        self.groups = groups
        kinds = np.array([len({s.value for case in group for s in case.structures}) for group in groups], float)
        self.shares = kinds**SHARE_EXPONENT / (kinds**SHARE_EXPONENT).sum()

    def draw(self, generator: np.random.Generator) -> TrainingCase:
        """A case at random."""
        group = self.groups[int(generator.choice(len(self.groups), p=self.shares))]
        return group[int(generator.integers(len(group)))]


def load_group(folder: Path, spec: ModelSpec, held_out: int) -> list[TrainingCase]:
    """The cases of a folder that are trained on, in any layout of :func:`~deepgrow3d_app.cases.folders.find_cases`.

    A case folder is also seen as coarser scanners would have stored it, and never held out. A prepared folder
    says itself which cases are trained on.

    Args:
        folder: the cases of one data set.
        spec: says how intensities are read.
        held_out: how many cases of any other layout, the last ones by name, are left out for validation.

    Raises:
        NotFound: no such folder, or no labelled cases in it.
        InvalidInput: a case cannot be read.
        TrainingError: nothing left to train on.
    """
    if alone := find_case_folder(folder):
        case = load_case(alone[0], spec)
        return [case, *(other for mm in COARSER_MM if (other := coarser(case, mm)) is not None)]
    sources = find_prepared_folder(folder, "training")
    if sources is None:
        found = find_cases(folder)
        sources = found[: max(0, len(found) - held_out)]
        if not sources:
            raise TrainingError(
                f"Nothing is left of '{folder}' to train on: it has {len(found)} cases, and the last {held_out} are "
                f"held out. Hold out at most {len(found) - 1}."
            )
    elif not sources:
        raise TrainingError(f"No case in '{folder}' is for training. Prepare more, or a smaller share for validation.")
    return [load_case(source, spec) for source in sources]


def describe_groups(folders: Sequence[Path], groups: Sequence[Sequence[TrainingCase]]) -> str:
    """Which data a model has seen, as JSON: folder names, cases and structures."""
    return json.dumps(
        [
            {
                "name": folder.name,
                "cases": len(group),
                "structures": len({s.value for c in group for s in c.structures}),
            }
            for folder, group in zip(folders, groups, strict=True)
        ]
    )
