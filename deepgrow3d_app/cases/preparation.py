"""The preparation of one case: read it, check it, bring it to the grid and the table of all, write it whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deepgrow3d_app.cases.labelled_case import LabelledCase, structures_in, voxel_counts
from deepgrow3d_app.cases.prepared_case import read_prepared_case, remarks_if_made_from, write_prepared_case
from deepgrow3d_app.cases.resample import in_ras_order, resample
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.cases.structure_table import to_table
from deepgrow3d_app.errors import DeepGrow3DError, InvalidInput
from deepgrow3d_app.volume.atomic_folder import replaced_folder
from deepgrow3d_app.volume.geometry import Spacing
from deepgrow3d_app.volume.signature import signature_of

MIN_STRUCTURE_VOXELS = 30
"""Structures of fewer voxels teach nothing: training leaves them out."""

RECIPE_VERSION = 2
"""Part of what a prepared case was made from: raise it when the same files would be prepared differently."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a case.

    Attributes:
        case: its name.
        file: where the fault lies.
        message: what it is and what to do, fit to be shown as it is.
        is_left_out: whether the case could not be prepared, or merely deserves a look.
    """

    case: str
    file: Path
    message: str
    is_left_out: bool


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is to be done to one case; it can be sent to another process.

    Attributes:
        source: the case.
        folder: where it goes.
        spacing_mm: of the result, in RAS order; None keeps the voxels as they are.
        table: name to value in the result; empty where no case names its structures.
    """

    source: CaseSource
    folder: Path
    spacing_mm: Spacing | None
    table: Mapping[str, int]

    def run(self) -> Outcome:
        """Prepare the case, unless that was done before; what is wrong with it becomes faults.

        Raises:
            OSError: the result cannot be written.
        """
        source = self.source
        try:
            made_from = self._digest()
            remarks = remarks_if_made_from(self.folder, made_from) if self._is_readable() else None
            is_new = remarks is None
            if remarks is None:
                remarks = self._prepare(made_from)
            structures = read_prepared_case(self.folder, source.name).structures
        except (DeepGrow3DError, MemoryError) as error:
            message = str(error) or "There is not enough memory for it. Use fewer workers, or a coarser spacing."
            return Outcome(source.name, None, False, (Fault(source.name, source.image, message, True),))
        faults = tuple(Fault(source.name, source.labels, remark, False) for remark in remarks)
        return Outcome(source.name, structures, is_new, faults)

    def _is_readable(self) -> bool:
        """Whether an earlier call left a case whose arrays are whole; a damaged one is prepared again."""
        try:
            read_prepared_case(self.folder, self.source.name)
        except DeepGrow3DError:
            return False
        return True

    def _prepare(self, made_from: str) -> tuple[str, ...]:
        case = self.source.load()
        remarks = self._remarks_on_labels(case)
        lookup = to_table(self.source.names, self.table)
        labels = lookup[case.labels]
        case = replace(case, labels=labels, structures=structures_in(labels, self.table))
        if not case.structures:
            raise InvalidInput(
                f"'{self.source.labels}' has no voxel of any structure. Draw one, or leave the case out."
            )
        case = in_ras_order(case)
        stored_names = list(case.structures)
        if self.spacing_mm is not None:
            case = resample(case, self.spacing_mm)
            if not case.structures:
                raise InvalidInput(
                    f"At {self.spacing_mm} mm nothing is left of {_listed(stored_names)} in '{self.source.labels}'. "
                    "Choose a finer spacing, or leave the case out."
                )
        remarks += self._remarks_on_sizes(case, stored_names)
        with replaced_folder(self.folder) as folder:
            write_prepared_case(case, folder, made_from, remarks)
        return tuple(remarks)

    def _remarks_on_labels(self, case: LabelledCase) -> list[str]:
        names, file = self.source.names, self.source.labels
        if not self.table:
            return []
        if not names:
            raise InvalidInput(
                f"The structures of '{file}' have no names, those of other cases have. "
                "Name them in a structures.json (in a studies folder: save the label again, with names), or prepare "
                "this case in another folder."
            )
        remarks = []
        named = set(names.values())
        unnamed = [value for value in case.structures.values() if value not in named]
        if unnamed:
            remarks.append(
                f"'{file}' holds values without a name, which became background: {_listed(unnamed)}. "
                f"Named are {_listed(sorted(named))}: name the others as well."
            )
        absent = [name for name in names if name not in case.structures]
        if absent:
            remarks.append(f"'{file}' has no voxel of {_listed(absent)}. If the image shows it, draw it.")
        return remarks

    def _remarks_on_sizes(self, case: LabelledCase, stored_names: list[str]) -> list[str]:
        file = self.source.labels
        remarks = []
        lost = [name for name in stored_names if name not in case.structures]
        if lost:
            remarks.append(
                f"'{file}' loses {_listed(lost)} at {self.spacing_mm} mm. Choose a finer spacing to keep it."
            )
        counts = voxel_counts(case.labels)
        tiny = [
            f"{name} ({counts[value]})"
            for name, value in case.structures.items()
            if counts[value] < MIN_STRUCTURE_VOXELS
        ]
        if tiny:
            remarks.append(
                f"'{file}' has structures of fewer than {MIN_STRUCTURE_VOXELS} voxels: {_listed(tiny)}. "
                "They are kept, but not trained on: remove stray voxels, or choose a finer spacing."
            )
        return remarks

    def _digest(self) -> str:
        """Of the files (name, size and time of change: contents would cost a read) and of what is done to them."""
        files = [_versions(self.source.image), _versions(self.source.labels)]
        names = sorted((name, value, self.table[name]) for name, value in self.source.names.items())
        what = [RECIPE_VERSION, files, self.spacing_mm, names, bool(self.table)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: its name.
        structures: name to value; None where it was left out.
        is_new: whether work was done, or it had been prepared before.
        faults: what is wrong with it.
    """

    case: str
    structures: Mapping[str, int] | None
    is_new: bool
    faults: tuple[Fault, ...]


def _versions(path: Path) -> list[tuple[str, int, int]]:
    """(name, bytes, time of change in ns) of a file, or of all files in a folder; empty where none can be seen."""
    return [(name or path.name, size, changed_ns) for name, changed_ns, _, size in signature_of(path)]


def _listed(things: list[str] | list[int]) -> str:
    return ", ".join(map(str, things))
