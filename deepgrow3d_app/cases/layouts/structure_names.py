"""Which structure has which label value, as a JSON file beside the cases says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepgrow3d_app.errors import InvalidInput, UnreadableVolume

STRUCTURES_FILE = "structures.json"
DATASET_FILE = "dataset.json"


def names_beside(folder: Path) -> dict[str, int]:
    """Name to value as ``structures.json``, else ``dataset.json``, in ``folder`` says; empty where there is neither.

    Raises:
        UnreadableVolume: the file is damaged.
        InvalidInput: a value that a label map cannot hold, or that two names share.
    """
    if (folder / STRUCTURES_FILE).exists():
        return names_from_structures(read_object(folder / STRUCTURES_FILE), folder / STRUCTURES_FILE)
    if (folder / DATASET_FILE).exists():
        return names_from_dataset(read_object(folder / DATASET_FILE), folder / DATASET_FILE)
    return {}


def names_from_structures(content: Mapping[str, object], file: Path) -> dict[str, int]:
    """The names of ``{"structures": {NAME: {"value": V}}}`` or, shorter, ``{"structures": {NAME: V}}``.

    Args:
        content: what ``file`` holds.
        file: for messages.

    Raises:
        UnreadableVolume: another form.
        InvalidInput: a value that a label map cannot hold, or that two names share.
    """
    structures = content.get("structures")
    try:
        if not isinstance(structures, Mapping):
            raise TypeError("'structures' is missing, or not an object")
        names = {
            str(name): whole_number(entry["value"] if isinstance(entry, Mapping) else entry)
            for name, entry in structures.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableVolume(
            str(file), f"{type(error).__name__}: {error}", 'Write {"structures": {NAME: {"value": V}}}.'
        ) from error
    return _checked(names, file)


def names_from_dataset(content: Mapping[str, object], file: Path) -> dict[str, int]:
    """The names of the Decathlon's ``{"labels": {"1": NAME}}``, or of nnU-Net's ``{"labels": {NAME: 1}}``.

    Args:
        content: what ``file`` holds.
        file: for messages.

    Raises:
        UnreadableVolume: another form, regions of several values among them.
        InvalidInput: a value that a label map cannot hold, or that two names share, or two values of one name.
    """
    labels = content.get("labels")
    try:
        if not isinstance(labels, Mapping):
            raise TypeError("'labels' is missing, or not an object")
        pairs = [(b, whole_number(a)) if isinstance(b, str) else (str(a), whole_number(b)) for a, b in labels.items()]
    except (ValueError, TypeError) as error:
        raise UnreadableVolume(
            str(file), f"{type(error).__name__}: {error}", 'Write {"labels": {"1": NAME, "2": NAME}}.'
        ) from error
    names: dict[str, int] = {}
    for name, value in pairs:
        if value != 0 and names.setdefault(name, value) != value:
            raise InvalidInput(f"'{file}' calls both {names[name]} and {value} '{name}'. Give each value its own name.")
    return _checked(names, file)


def whole_number(value: Any) -> int:
    """The number that ``value`` states, as a number or as text.

    Raises:
        ValueError, TypeError: it states none, or a fraction.
    """
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is no label value")
    return int(value)


def read_object(file: Path) -> dict[str, object]:
    """The JSON object that ``file`` holds.

    Raises:
        UnreadableVolume: it cannot be opened, or holds something else.
    """
    remedy = "Write one JSON object, in UTF-8."
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))  # Windows puts a byte-order mark first
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableVolume(str(file), f"{type(error).__name__}: {error}", remedy) from error
    if not isinstance(content, dict):
        raise UnreadableVolume(str(file), f"it holds a JSON {type(content).__name__}", remedy)
    return content


def _checked(names: dict[str, int], file: Path) -> dict[str, int]:
    """``names``, where each has a value of its own that a label map can hold."""
    taken: dict[int, str] = {}
    for name, value in names.items():
        if not 1 <= value <= 255:
            raise InvalidInput(f"'{file}' gives '{name}' the value {value}. Choose one from 1 to 255; 0 is background.")
        if value in taken:
            raise InvalidInput(
                f"'{file}' gives '{taken[value]}' and '{name}' the same value {value}. Give each its own, 1 to 255."
            )
        taken[value] = name
    return names
