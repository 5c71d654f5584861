"""What the values of a label map mean: ``{"label_info": [{"name": "liver", "idx": 1}, ...]}``, as viewers send it.

What is sent is read strictly: a name that is lost unseen cannot be told from the voxels later. What is there already,
by whomever, is read as well as it can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepgrow3d_app.cases.labelled_case import voxel_counts
from deepgrow3d_app.errors import InvalidRequest, LabelMismatch
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.volume.dicom_seg.segment import Segment
from deepgrow3d_app.volume.volume import Mask

LABEL_INFO = "label_info"
MAX_VALUE = 255


def segments_of(info: Mapping[str, Any]) -> list[Segment]:
    """The structures that ``info`` names; what is none is left out. An entry without a value has that of its place."""
    segments: dict[int, Segment] = {}
    given = info.get(LABEL_INFO)
    for place, entry in enumerate(given if isinstance(given, list) else [], start=1):
        if isinstance(entry, Mapping):
            value, name = entry.get("idx", place), entry.get("name")
            if isinstance(value, int) and 0 < value <= MAX_VALUE and isinstance(name, str) and name.strip():
                segments.setdefault(value, Segment(value, name.strip()))
    return list(segments.values())


def info_of(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """``segments`` as viewers send them."""
    return [{"name": segment.name, "idx": segment.value} for segment in segments]


def check_names(info: Mapping[str, Any]) -> None:
    """Refuse names that :func:`segments_of` would leave out; a name of the value 0, the background, may be there.

    Raises:
        InvalidRequest: no list of objects, an entry without a name, a value out of bounds, or one that is named twice.
    """
    given = info.get(LABEL_INFO)
    if given is None:
        return
    if not isinstance(given, list):
        raise InvalidRequest(
            f'label_info is {shown(str(given))}. Send a list, such as [{{"name": "liver", "idx": 1}}].'
        )
    taken: dict[int, str] = {}
    for place, entry in enumerate(given, start=1):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping) or not isinstance(name, str) or not name.strip():
            raise InvalidRequest(
                f"Entry {place} of label_info, {shown(str(entry))}, has no name. "
                'Send objects such as {"name": "liver", "idx": 1}.'
            )
        value = entry.get("idx", place)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_VALUE:
            raise InvalidRequest(
                f"Entry {place} of label_info, {shown(name)}, has the value {shown(str(value))}. "
                f"Send a whole number from 1 to {MAX_VALUE} as its 'idx'."
            )
        if value in taken:
            raise InvalidRequest(
                f"Entry {place} of label_info, {shown(name)}, has the value {value}, which {shown(taken[value])} has "
                "too. Give each structure a value of its own."
            )
        taken[value] = name


def with_values(info: Mapping[str, Any]) -> dict[str, Any]:
    """``info``, checked, with the value that each name has: readers do not all know that of an entry without one."""
    given = info.get(LABEL_INFO)
    if not given:
        return dict(info)
    return {**info, LABEL_INFO: [{**entry, "idx": entry.get("idx", place)} for place, entry in enumerate(given, 1)]}


def check_values(mask: Mask, info: Mapping[str, Any]) -> None:
    """Refuse values that nothing names, where anything is named: nobody could tell later what they mean.

    Raises:
        LabelMismatch: ``mask`` has a voxel of such a value.
    """
    named = {segment.value for segment in segments_of(info)}
    unnamed = sorted(set(np.flatnonzero(voxel_counts(mask)).tolist()) - named - {0})
    if named and unnamed:
        raise LabelMismatch(
            f"The label has voxels of the value {', '.join(map(str, unnamed))}, and label_info names only "
            f"{', '.join(map(str, sorted(named)))}. Name every structure, or erase those voxels."
        )
