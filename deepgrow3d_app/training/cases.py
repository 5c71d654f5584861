"""Labelled cases as training wants them, and how often each is drawn. Voxels stay on disk until they are looked at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.labelled_case import LabelledCase, voxel_counts
from deepgrow3d_app.cases.layouts.case_folder import find_case_folder
from deepgrow3d_app.cases.layouts.prepared_folder import find_prepared_folder
from deepgrow3d_app.cases.preparation import MIN_STRUCTURE_VOXELS
from deepgrow3d_app.cases.prepare import prepare_cases
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.model.intensity import IntensityWindow
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.geometry import Shape, Spacing

SHARE_EXPONENT = 0.35
SIZE_EXPONENT = 0.1

Tell = Callable[[str], None]
"""Called with a line for people to read."""


@dataclass(frozen=True, slots=True)
class Structure:
    """One labelled structure of a case: its label value, its size, and its box on the case's grid."""

    value: int
    voxels: int
    low: tuple[int, int, int]
    high: tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingCase:
    """What is kept in memory of a case in RAS order: not its voxels.

    Attributes:
        source: a prepared case.
        shape: of its arrays.
        spacing_mm: voxel edges.
        window: which stored values are which intensities.
        structures: those large enough to learn from.
    """

    source: CaseSource
    shape: Shape
    spacing_mm: Spacing
    window: IntensityWindow
    structures: tuple[Structure, ...]

    @classmethod
    def of(cls, source: CaseSource, spec: ModelSpec) -> TrainingCase:
        """The case of a prepared ``source``.

        Raises:
            UnreadableVolume, LabelMismatch: its files are damaged.
        """
        case = source.load()
        window = IntensityWindow.of(case.volume, spec.window_hu, spec.compress_tails)
        return cls(source, case.volume.shape, case.volume.spacing_mm, window, _structures(case.labels))

    def open(self) -> LabelledCase:
        """Its arrays, mapped into memory anew: what is read of them is given back with the last reference.

        A map that stayed open would keep every page that was ever read among the memory of the process.
        """
        return self.source.load()

    def name_of(self, structure: Structure) -> str:
        """What the case calls ``structure``; "" where its values have no names."""
        return next((name for name, value in self.source.names.items() if value == structure.value), "")

    def draw_structure(self, generator: np.random.Generator) -> Structure:
        """One at random, the larger ones somewhat more often."""
        weights = np.array([structure.voxels for structure in self.structures], float) ** SIZE_EXPONENT
        return self.structures[int(generator.choice(len(self.structures), p=weights / weights.sum()))]


def _structures(labels: npt.NDArray[np.uint8]) -> tuple[Structure, ...]:
    counts = voxel_counts(labels)
    return tuple(
        Structure(value, int(counts[value]), tuple(s.start for s in box), tuple(s.stop for s in box))
        for value, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None and counts[value] >= MIN_STRUCTURE_VOXELS
    )


@dataclass(frozen=True, slots=True)
class CaseGroup:
    """One data set: the cases that are trained on, and those that are kept for validation."""

    name: str
    training: tuple[TrainingCase, ...]
    validation: tuple[TrainingCase, ...]


class CasePool:
    """The training cases of all groups, drawn so that neither large nor rich sets drown the others.

    A group's share of the draws grows with its number of labelled structures, over all its cases, to the
    power 0.35.

    Args:
        groups: the data sets.
        first_share: that of the first group, where it is given; the others share the rest.

    Raises:
        TrainingError: there is no case to train on.
    """

    def __init__(self, groups: Sequence[CaseGroup], first_share: float | None = None) -> None:
        self.groups = [group.training for group in groups if group.training]
        if not self.groups:
            raise TrainingError("There is no case to train on. Name at least one folder with labelled cases.")
        structures = np.array([sum(len(case.structures) for case in group) for group in self.groups], float)
        self.shares = structures**SHARE_EXPONENT / (structures**SHARE_EXPONENT).sum()
        if first_share is not None and len(self.groups) > 1:
            others = self.shares[1:] / self.shares[1:].sum()
            self.shares = np.concatenate([[first_share], (1 - first_share) * others])

    def is_of_first_group(self, case: TrainingCase) -> bool:
        """Whether ``case``, one of this pool, is of its first group."""
        return case in self.groups[0]

    def draw(self, generator: np.random.Generator) -> TrainingCase:
        """A case at random."""
        group = self.groups[int(generator.choice(len(self.groups), p=self.shares))]
        return group[int(generator.integers(len(group)))]


def load_group(
    folder: Path,
    spec: ModelSpec,
    held_out: int,
    cache: Path,
    tell: Tell = lambda line: None,
    prepares: bool = True,
) -> CaseGroup:
    """The cases of a folder, in any layout of :func:`~deepgrow3d_app.cases.folders.find_cases`.

    A prepared folder is read where it lies, and says itself which cases are kept for validation. Others are
    prepared in ``cache`` with their own voxels. A case folder is never held out.

    Args:
        folder: the cases of one data set.
        spec: says how intensities are read.
        held_out: how many cases of any other layout, the last ones by name, are kept for validation, and with them
            all others of their patients.
        cache: a folder for prepared arrays; what it holds from an earlier call is used again.
        tell: told what is wrong with cases that are left out.
        prepares: whether ``cache`` is filled; else an earlier call filled it, and nothing is written.

    Raises:
        NotFound: no such folder, or no labelled cases in it.
        TrainingError: nothing left to train on; or ``cache`` was filled on a disk that is not seen from here.
    """
    name = folder.resolve().name
    training, validation = find_prepared_folder(folder, "training"), find_prepared_folder(folder, "validation")
    if training is None or validation is None:
        found = _prepared(folder, cache, tell) if prepares else _found_prepared(cache)
        count = 0 if find_case_folder(folder) else held_out
        # With a case, all of its patient: whoever is trained on must not be judged on.
        patients = {source.patient for source in found[max(0, len(found) - count) :]}
        training = [source for source in found if source.patient not in patients]
        validation = [source for source in found if source.patient in patients]
        if not training:
            raise TrainingError(
                f"Nothing is left of '{folder}' to train on: it has {len(found)} cases of "
                f"{len({source.patient for source in found})} patients, and the last {count} are held out, with all "
                "others of their patients. Hold out fewer."
            )
    elif not training:
        raise TrainingError(f"No case in '{folder}' is for training. Prepare more, or a smaller share for validation.")
    group = CaseGroup(
        name, _with_structures(training, spec, tell), _with_structures(validation, spec, lambda line: None)
    )
    if not group.training:
        raise TrainingError(
            f"No case in '{folder}' has a structure of at least {MIN_STRUCTURE_VOXELS} voxels to learn from. "
            "Leave the folder out."
        )
    return group


def _found_prepared(cache: Path) -> list[CaseSource]:
    sources = find_prepared_folder(cache)
    if sources is None:
        raise TrainingError(
            f"There are no prepared cases in '{cache}', where the first process has put them. Let the run's folder lie "
            "on a disk that all machines share."
        )
    return sources


def _prepared(folder: Path, cache: Path, tell: Tell) -> list[CaseSource]:
    report = prepare_cases(sorted(find_cases(folder), key=lambda source: source.name), cache, None, 0.0)
    for fault in report.left_out:
        tell(f"left out: {fault.case}: {fault.message}")
    sources = find_prepared_folder(cache)
    if not sources:
        reason = report.left_out[0].message if report.left_out else "it is empty"
        raise TrainingError(f"No case in '{folder}' can be used: {reason}")
    return sources


def _with_structures(sources: Sequence[CaseSource], spec: ModelSpec, tell: Tell) -> tuple[TrainingCase, ...]:
    cases = [TrainingCase.of(source, spec) for source in sources]
    for case in cases:
        if not case.structures:
            tell(f"left out: {case.source.name} has no structure of at least {MIN_STRUCTURE_VOXELS} voxels")
    return tuple(case for case in cases if case.structures)


def describe_groups(groups: Sequence[CaseGroup]) -> str:
    """Which data a model has seen, as JSON: folder names, training cases and structures."""
    return json.dumps(
        [
            {
                "name": group.name,
                "cases": len(group.training),
                "structures": len({s.value for case in group.training for s in case.structures}),
            }
            for group in groups
        ]
    )


def digest_of(groups: Sequence[CaseGroup]) -> str:
    """The same for the same cases with the same structures, in the same order, held out or not as well."""
    parts = [cases for group in groups for cases in (group.training, group.validation)]
    what = [[(case.source.name, case.shape, case.structures) for case in cases] for cases in parts]
    return hashlib.sha256(repr(what).encode()).hexdigest()
