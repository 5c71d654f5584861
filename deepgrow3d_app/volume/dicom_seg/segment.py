"""What a segmentation says of its structures, and of what made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepgrow3d_app.volume.volume import Mask


@dataclass(frozen=True, slots=True)
class Segment:
    """One structure of a label map.

    Attributes:
        value: of its voxels, 1 to 255.
        name: as people and models write it: ``liver``, ``left kidney``, ``kidney_left``, ``my lesion``.
    """

    value: int
    name: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What made a segmentation, by a person's clicks."""

    algorithm_name: str
    algorithm_version: str


@dataclass(frozen=True, slots=True)
class SegIdentity:
    """The UIDs of one segmentation."""

    series_uid: str
    instance_uid: str


@dataclass(frozen=True, slots=True, eq=False)
class DecodedSeg:
    """A segmentation on the grid of its series.

    Attributes:
        mask: uint8 (i, j, k).
        segments: by ascending value; all that the segmentation names, also those without a voxel.
        identity: its own UIDs.
    """

    mask: Mask
    segments: tuple[Segment, ...]
    identity: SegIdentity


def named_segments(mask: Mask, segments: Sequence[Segment]) -> list[Segment]:
    """The structures that have voxels in ``mask``, by ascending value; those without a name are called ``label 3``."""
    names = {segment.value: segment.name for segment in segments}
    values = np.flatnonzero(np.bincount(mask.reshape(-1), minlength=256)[1:]) + 1
    return [Segment(int(value), names.get(int(value), f"label {value}")) for value in values]
