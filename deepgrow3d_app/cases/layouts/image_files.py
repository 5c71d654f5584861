"""The images, or the label maps, of a folder by their names without extension."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from deepgrow3d_app.errors import InvalidInput
from deepgrow3d_app.volume.files import extension_of

SEGMENTATION = ".seg.nrrd"


def stem_of(path: Path) -> str:
    """The name of ``path`` without the extension of an image: ``case1`` for ``case1.nii.gz``."""
    return path.name.removesuffix(path.name[len(path.name) - len(extension_of(path.name)) :])


def image_files(folder: Path, *, or_folders: bool = False) -> dict[str, Path]:
    """Name without extension to path, of the images in ``folder``, sorted; hidden files are none.

    Neither are segmentations (``.seg.nrrd``), which 3D Slicer offers to save beside the image.

    Args:
        folder: an existing folder.
        or_folders: whether a folder counts as well, as one with a DICOM series.

    Raises:
        InvalidInput: two files differ in their extension alone.
    """
    return _by_stem(
        path
        for path in _visible(folder)
        if (extension_of(path.name) not in ("", SEGMENTATION) and path.is_file()) or (or_folders and path.is_dir())
    )


def label_files(folder: Path) -> dict[str, Path]:
    """Name without extension to path, of the label maps in ``folder``, sorted; hidden files are none.

    Raises:
        InvalidInput: two files differ in their extension alone.
    """
    return _by_stem(path for path in _visible(folder) if extension_of(path.name) and path.is_file())


def _visible(folder: Path) -> Iterator[Path]:
    """What lies in ``folder``, sorted; macOS puts ._case1.nii.gz beside case1.nii.gz."""
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        stem = stem_of(path)
        if stem in found:
            raise InvalidInput(
                f"'{found[stem]}' and '{path.name}' would both be the case '{stem}'. Remove or rename one of them."
            )
        found[stem] = path
    return found
