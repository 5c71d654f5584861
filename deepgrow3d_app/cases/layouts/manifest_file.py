"""A list of cases, written by hand or by a script: a ``.csv`` or ``.json`` file that names the files of each."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from deepgrow3d_app.cases.layouts.image_files import stem_of
from deepgrow3d_app.cases.layouts.structure_names import (
    STRUCTURES_FILE,
    names_beside,
    names_from_structures,
    read_object,
)
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import InvalidInput, UnreadableVolume

COLUMNS = ("image", "labels", "name", "patient")


def find_manifest_file(file: Path) -> list[CaseSource] | None:
    """The cases that ``file`` lists; its paths are relative to the folder that it lies in.

    A ``.csv`` has the columns ``image,labels`` and, if wanted, ``name,patient``; the names of its structures
    stand in a ``structures.json`` beside it. A ``.json`` holds ``{"structures": {NAME: V}, "cases": [{"image":
    FILE, "labels": FILE, "name": NAME, "patient": PATIENT}]}``; a case whose values mean something else has
    ``"structures"`` of its own.

    Raises:
        UnreadableVolume: the file is damaged, or its names are.
        InvalidInput: a case without image or labels, or two with the same name.
    """
    if not file.is_file():
        return None
    if file.suffix.lower() == ".csv":
        rows, names = _csv_rows(file), names_beside(file.parent) if (file.parent / STRUCTURES_FILE).exists() else {}
    elif file.suffix.lower() == ".json":
        content = read_object(file)
        rows = _json_rows(content, file)
        names = names_from_structures(content, file) if "structures" in content else {}
    else:
        return None
    cases = [_case(row, number, names, file) for number, row in enumerate(rows, start=1)]
    first_with: dict[str, int] = {}
    for number, case in enumerate(cases, start=1):
        if case.name in first_with:
            raise InvalidInput(
                f"Cases {first_with[case.name]} and {number} of '{file}' are both called '{case.name}'. "
                "Give each its own 'name'."
            )
        first_with[case.name] = number
    return cases


def _csv_rows(file: Path) -> list[Mapping[str, object]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:  # Excel puts a byte-order mark first
            return [
                {(key or "").strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str)}
                for row in csv.DictReader(lines)
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise UnreadableVolume(
            str(file),
            f"{type(error).__name__}: {error}",
            f"Write a line '{','.join(COLUMNS)}', then one for each case.",
        ) from error


def _json_rows(content: Mapping[str, object], file: Path) -> list[Mapping[str, object]]:
    rows = content.get("cases")
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise UnreadableVolume(
            str(file),
            "'cases' is missing, or no list of objects",
            'Write {"cases": [{"image": FILE, "labels": FILE}]}.',
        )
    return rows


def _case(row: Mapping[str, object], number: int, names: Mapping[str, int], file: Path) -> CaseSource:
    cells = [row.get(column) for column in COLUMNS]
    image, labels, name, patient = ("" if cell is None else str(cell) for cell in cells)  # 0 is a number of a patient
    if not image or not labels:
        raise InvalidInput(
            f"Case {number} of '{file}' has no {'labels' if image else 'image'}: it has {dict(row)}. "
            "Name both files, as 'image' and 'labels'."
        )
    name = name or stem_of(Path(image))
    if not isinstance(row.get("structures"), str | None):  # a column of a .csv may be called so; null says nothing
        names = names_from_structures(row, file)
    return CaseSource(name, patient or name, file.parent / image, file.parent / labels, names)
