"""What ``deepgrow3d prepare`` wrote: a manifest, and for each case arrays that are mapped into memory."""

from __future__ import annotations

from pathlib import Path

from deepgrow3d_app.cases.prepared_case import IMAGE_FILE, LABELS_FILE
from deepgrow3d_app.cases.prepared_manifest import MANIFEST_FILE, PreparedManifest, Split
from deepgrow3d_app.cases.source import CaseSource


def find_prepared_folder(folder: Path, split: Split | None = None) -> list[CaseSource] | None:
    """The cases of a prepared folder (or of its ``manifest.json``), or those on one side of its split.

    Raises:
        UnreadableVolume: the manifest is damaged.
        InvalidInput: the manifest was written by a later version.
    """
    folder = folder.parent if folder.name == MANIFEST_FILE else folder
    manifest = PreparedManifest.read(folder)
    if manifest is None:
        return None
    return [
        CaseSource(
            entry.name,
            entry.patient,
            folder / entry.folder / IMAGE_FILE,
            folder / entry.folder / LABELS_FILE,
            manifest.structures,
        )
        for entry in manifest.cases
        if split is None or entry.split == split
    ]
