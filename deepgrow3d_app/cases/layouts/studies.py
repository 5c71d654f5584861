"""The studies folder of a MONAI Label server: images, and their final labels in ``labels/final/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepgrow3d_app.cases.layouts.image_files import image_files, label_files
from deepgrow3d_app.cases.layouts.structure_names import read_object, whole_number
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import NotFound

INDEX_FILE = "datastore_v2.json"
FINAL = "final"


def find_studies(folder: Path) -> list[CaseSource] | None:
    """A case for each image that has a final label.

    Which images and labels there are is seen from their files, as MONAI Label's own start-up does; the index
    only adds the names of structures and, where it was changed, the two folders.

    Raises:
        UnreadableVolume: the index is damaged.
        NotFound: no image has a final label.
    """
    index_file = folder / INDEX_FILE
    index: Mapping[str, Any] = read_object(index_file) if index_file.is_file() else {}
    images_folder = folder / str(index.get("images_dir", "."))
    labels_folder = folder / str(index.get("labels_dir", "labels")) / FINAL
    if not index and not labels_folder.is_dir():
        return None
    images = image_files(images_folder) if images_folder.is_dir() else {}
    labels = label_files(labels_folder) if labels_folder.is_dir() else {}
    final = sorted(images.keys() & labels.keys())
    if not final:
        raise NotFound(
            f"None of the {len(images)} images in the studies '{folder}' has a final label. "
            "Save labels first ('Submit Label' in 3D Slicer)."
        )
    return [CaseSource(name, name, images[name], labels[name], _names(index, name)) for name in final]


def _names(index: Mapping[str, Any], image_id: str) -> dict[str, int]:
    """The names that came with the final label: ``"label_info": [{"name": NAME, "idx": V}]``.

    Whoever saves a label sends what he likes beside it. What is no such list, or names two structures alike,
    says nothing of the values, and must not keep the other cases from being used.
    """
    try:
        entries = index["objects"][image_id]["labels"][FINAL]["info"]["label_info"]
        pairs = [(str(entry["name"]), whole_number(entry["idx"])) for entry in entries]
    except (KeyError, TypeError, ValueError):
        return {}
    names = dict(pairs)
    is_plain = len(names) == len(set(names.values())) == len(pairs) and all(1 <= v <= 255 for v in names.values())
    return names if is_plain else {}
