"""A folder for each case: ``image.nii.gz``, ``labels.nii.gz`` and, for the names, ``structures.json``."""

from __future__ import annotations

import os
from pathlib import Path

from deepgrow3d_app.cases.layouts.image_files import SEGMENTATION
from deepgrow3d_app.cases.layouts.structure_names import names_beside
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import InvalidInput
from deepgrow3d_app.volume.files import EXTENSIONS, extension_of


def find_case_folder(folder: Path) -> list[CaseSource] | None:
    """The one case of a case folder.

    Raises:
        UnreadableVolume: the file of names is damaged.
        InvalidInput: two images or two label maps, or an impossible label value.
    """
    image, labels = _paths_called("image", folder), _paths_called("labels", folder)
    image = [path for path in image if extension_of(path.name) != SEGMENTATION]
    labels = [path for path in labels if path.is_file()]
    if not image or not labels:
        return None
    for paths in (image, labels):
        if len(paths) > 1:
            raise InvalidInput(
                f"'{folder}' holds '{paths[0].name}' and '{paths[1].name}'. Remove or rename one of them."
            )
    name = Path(os.path.abspath(folder)).name  # not of what a link leads to: several may end in one name
    return [CaseSource(name, name, image[0], labels[0], names_beside(folder))]


def find_case_folders(folder: Path) -> list[CaseSource] | None:
    """The cases of a folder of case folders; what else lies there is passed over.

    Where there is a whole case, a folder with an image or labels alone is one too: loading it says what is missing.
    """
    if not folder.is_dir():
        return None
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    whole = {path: cases for path in inner if (cases := find_case_folder(path))}
    if not whole:
        return None
    return [case for path in inner for case in whole.get(path) or _half_case(path)]


def _half_case(folder: Path) -> list[CaseSource]:
    """The case of a folder that has an image or labels, but not both; else none."""
    if not (_paths_called("image", folder) or _paths_called("labels", folder)):
        return []
    image, labels = ([*_paths_called(stem, folder), folder / f"{stem}.nii.gz"][0] for stem in ("image", "labels"))
    return [CaseSource(folder.name, folder.name, image, labels, {})]


def _paths_called(stem: str, folder: Path) -> list[Path]:
    """What is called ``stem`` in ``folder``: files with the extension of an image, and a folder."""
    files = [folder / f"{stem}{extension}" for extension in EXTENSIONS]
    return [*(file for file in files if file.is_file()), *([folder / stem] if (folder / stem).is_dir() else [])]
