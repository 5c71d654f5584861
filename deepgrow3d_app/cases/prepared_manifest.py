"""The table of contents of a prepared folder, ``manifest.json``."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from deepgrow3d_app.errors import InvalidInput, UnreadableVolume
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.geometry import Spacing

MANIFEST_FILE = "manifest.json"
FORMAT = "deepgrow3d-cases"
VERSION = 1

Split = Literal["training", "validation"]


@dataclass(frozen=True, slots=True)
class PreparedEntry:
    """A case in the manifest.

    Attributes:
        name: unique in the manifest.
        patient: cases of one patient have one split.
        split: the side that it is on.
        folder: where its arrays lie, relative to the manifest.
    """

    name: str
    patient: str
    split: Split
    folder: str


@dataclass(frozen=True, slots=True)
class PreparedManifest:
    """What a prepared folder holds.

    Attributes:
        spacing_mm: of every case, in RAS order; None where each kept its own.
        structures: name to label value; a name has the same value in every case.
        cases: sorted by name.
        table: name to label value of all that any case names, found in it or not: the next call gives them the same.
    """

    spacing_mm: Spacing | None
    structures: dict[str, int]
    cases: tuple[PreparedEntry, ...]
    table: dict[str, int]

    def write(self, folder: Path) -> None:
        """Put it into ``folder``; a reader sees the old one or the new one, whole."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        replace_file(folder / MANIFEST_FILE, io.BytesIO(json.dumps(content, indent=1).encode()))

    @classmethod
    def read(cls, folder: Path) -> PreparedManifest | None:
        """The manifest in ``folder``; None where there is none, or a JSON file of another kind.

        Raises:
            InvalidInput: written by a later version.
            UnreadableVolume: it is damaged.
        """
        file = folder / MANIFEST_FILE
        if not file.is_file():
            return None
        remedy = "Prepare the cases again: what is finished is kept."
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))  # another kind may come from Windows
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                return None
            if content["version"] != VERSION:
                raise InvalidInput(
                    f"'{file}' is of version {content['version']}, this program reads version {VERSION}. "
                    "Update this program, or prepare the cases in another folder."
                )
            spacing_mm = content["spacing_mm"]
            structures = {str(name): int(value) for name, value in content["structures"].items()}
            return cls(
                None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
                structures,
                tuple(_entry(case) for case in content["cases"]),
                {str(name): int(value) for name, value in content.get("table", structures).items()},
            )
        except (OSError, ValueError, OverflowError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise UnreadableVolume(str(file), f"{type(error).__name__}: {error}", remedy) from error


def _entry(case: dict[str, str]) -> PreparedEntry:
    split: Split
    if case["split"] == "training":
        split = "training"
    elif case["split"] == "validation":
        split = "validation"
    else:
        raise ValueError(f"the split '{case['split']}' is neither training nor validation")
    name, patient, folder = case["name"], case["patient"], case["folder"]
    if not all(isinstance(text, str) for text in (name, patient, folder)):
        raise TypeError(f"name, patient and folder are {name!r}, {patient!r} and {folder!r}, and should be text")
    return PreparedEntry(name, patient, split, folder)
