"""One table of structures for cases whose layouts number them differently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.errors import InvalidInput

NOTHING_KNOWN: Mapping[str, int] = MappingProxyType({})


def structure_table(
    names_of_cases: Iterable[Mapping[str, int]], known: Mapping[str, int] = NOTHING_KNOWN
) -> dict[str, int]:
    """Name to value for all cases together, in the order of the values; empty where no case names anything.

    Values stay as they are where the cases agree on them. Where they do not, as when every annotator called his
    first structure 1, the names are numbered from 1 in the order of the alphabet.

    Args:
        names_of_cases: name to value, for each case.
        known: the table of an earlier call: what has a value keeps it, so that cases which were written with that table
            stay as they are; new names get the values that are free.

    Raises:
        InvalidInput: more names than a label map has values.
    """
    pairs = {(name, value) for names in names_of_cases for name, value in names.items()}
    names, values = {name for name, _ in pairs}, {value for _, value in pairs}
    if len(names) > 255:
        raise InvalidInput(
            f"The cases have {len(names)} different structures, a label map holds 255. Prepare them in two folders."
        )
    if not known.keys() & names:
        if len(names) == len(values) == len(pairs):
            return dict(sorted(pairs, key=lambda pair: pair[1]))
        return {name: value for value, name in enumerate(sorted(names), start=1)}
    table = {name: known[name] for name in known.keys() & names}
    # A value that only names gone by have is free again, but taken last: cases may come back.
    free = sorted(set(range(1, 256)) - set(table.values()), key=lambda value: (value in known.values(), value))
    wanted = dict(sorted(pairs, reverse=True))  # of several values, the smallest
    for name in sorted(names - table.keys()):
        value = wanted[name] if wanted[name] in free and wanted[name] not in known.values() else free[0]
        free.remove(value)
        table[name] = value
    return dict(sorted(table.items(), key=lambda pair: pair[1]))


def to_table(names: Mapping[str, int], table: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """For each value of a case, that of ``table``: ``to_table(...)[labels]``. What ``names`` does not name is 0.

    With an empty table every value stays as it is.

    Returns:
        (256,), indexed by the case's own value.
    """
    if not table:
        return np.arange(256, dtype=np.uint8)
    lookup = np.zeros(256, np.uint8)
    for name, value in names.items():
        lookup[value] = table[name]
    return lookup
