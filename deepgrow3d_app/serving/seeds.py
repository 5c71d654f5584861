"""Clicks taken from a label that is there already: the deepest voxels of its structures."""

from __future__ import annotations

import numpy as np
from monailabel.interfaces.exception import MONAILabelException

from deepgrow3d_app.cases.labelled_case import structures_in
from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.errors import DeepGrow3DError
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.label_names import segments_of
from deepgrow3d_app.volume.files import read_mask
from deepgrow3d_app.volume.geometry import Index

MAX_SEEDS = 8


def structure_seeds(images: StudiesDatastore, image: str, tag: str) -> dict[str, Click]:
    """The deepest voxel of each structure of the label ``tag`` of ``image``, by the structure's name.

    Raises:
        NotFound: there is no such label.
        InvalidInput: it is damaged.
    """
    mask, affine = read_mask(images.label_file(image, tag))
    names = {segment.name: segment.value for segment in segments_of(images.get_label_info(image, tag))}
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    simulator = ClickSimulator((float(spacing[0]), float(spacing[1]), float(spacing[2])))
    seeds = {}
    for name, value in structures_in(mask, names).items():
        click = simulator.next_click(mask == value, np.zeros(mask.shape, np.bool_), [])
        if click is not None:
            seeds[name] = click
    return seeds


def seeds_of(images: StudiesDatastore, image: str) -> list[Index]:
    """Voxels of ``image`` that lie in structures, from any label that it has; none where it has none."""
    for tag in images.get_label_tags_of(image):
        try:
            return [click.index for click in structure_seeds(images, image, tag).values()][:MAX_SEEDS]
        except (DeepGrow3DError, MONAILabelException, OSError):  # noqa: PERF203 - another label may do
            continue
    return []
