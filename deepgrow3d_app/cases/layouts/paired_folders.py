"""``images/`` and ``labels/`` with files of equal names; the names of the structures lie above them, if anywhere."""

from __future__ import annotations

from pathlib import Path

from deepgrow3d_app.cases.layouts.image_files import image_files, label_files
from deepgrow3d_app.cases.layouts.structure_names import names_beside
from deepgrow3d_app.cases.source import CaseSource


def find_paired_folders(folder: Path) -> list[CaseSource] | None:
    """A case for each name in either folder: where a partner is missing, loading the case says so."""
    images_folder, labels_folder = folder / "images", folder / "labels"
    if not (images_folder.is_dir() and labels_folder.is_dir()):
        return None
    images, labels = image_files(images_folder, or_folders=True), label_files(labels_folder)
    names = names_beside(folder)
    return [
        CaseSource(
            name,
            name,
            images.get(name, images_folder / f"{name}.nii.gz"),
            labels.get(name, labels_folder / f"{name}.nii.gz"),
            names,
        )
        for name in sorted(images.keys() | labels.keys())
    ] or None
