"""The images of a folder by their names without extension."""

from __future__ import annotations

from pathlib import Path

from deepgrow3d_app.errors import InvalidInput
from deepgrow3d_app.volume.files import extension_of


def stem_of(path: Path) -> str:
    """The name of ``path`` without the extension of an image: ``case1`` for ``case1.nii.gz``."""
    return path.name.removesuffix(path.name[len(path.name) - len(extension_of(path.name)) :])


def image_files(folder: Path, *, or_folders: bool = False) -> dict[str, Path]:
    """Name without extension to path, of the images in ``folder``, sorted; hidden files are none.

    Args:
        folder: an existing folder.
        or_folders: whether a folder counts as well, as one with a DICOM series.

    Raises:
        InvalidInput: two files differ in their extension alone.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # macOS puts ._case1.nii.gz beside case1.nii.gz
            continue
        if not (extension_of(path.name) and path.is_file()) and not (or_folders and path.is_dir()):
            continue
        stem = stem_of(path)
        if stem in found:
            raise InvalidInput(
                f"'{found[stem]}' and '{path.name}' would both be the case '{stem}'. Remove or rename one of them."
            )
        found[stem] = path
    return found
