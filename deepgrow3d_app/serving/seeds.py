"""Clicks taken from a label that is there already: the deepest voxels of its structures."""

from __future__ import annotations

import numpy as np
from monailabel.interfaces.exception import MONAILabelException

from deepgrow3d_app.cases.labelled_case import voxel_counts
from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.errors import DeepGrow3DError
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.label_names import segments_of
from deepgrow3d_app.volume.geometry import Index

MAX_SEEDS = 8


def structure_seeds(images: StudiesDatastore, image: str, tag: str) -> dict[str, list[Click]]:
    """The deepest voxel of each value of the label ``tag`` of ``image``, by the structure's name.

    They are voxels of the image: another program's label may cover a part of it, as 3D Slicer's own do.

    Raises:
        NotFound: there is no such image or label.
        InvalidInput: it is damaged, or lies on another grid.
    """
    mask, volume = images.label_map(image, tag)
    names = {segment.value: segment.name for segment in segments_of(images.get_label_info(image, tag))}
    simulator = ClickSimulator(volume.spacing_mm)
    seeds: dict[str, list[Click]] = {}
    for value in np.flatnonzero(voxel_counts(mask)).tolist():
        click = simulator.next_click(mask == value, np.zeros(mask.shape, np.bool_), []) if value else None
        if click is not None:
            seeds.setdefault(names.get(value, f"label {value}"), []).append(click)
    return seeds


def seeds_of(images: StudiesDatastore, image: str) -> list[Index]:
    """Voxels of ``image`` that lie in structures, from any label that it has; none where it has none."""
    for tag in images.get_label_tags_of(image):
        try:
            seeds = structure_seeds(images, image, tag).values()
            return [click.index for clicks in seeds for click in clicks][:MAX_SEEDS]
        except (DeepGrow3DError, MONAILabelException, OSError):  # noqa: PERF203 - another label may do
            continue
    return []
