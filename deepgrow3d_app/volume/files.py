"""Volumes and masks on disk: which reader a name asks for, and writing that is never seen half done."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from deepgrow3d_app.errors import UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.dicom import read_dicom_series
from deepgrow3d_app.volume.geometry import Affine
from deepgrow3d_app.volume.nifti import encode_nifti, read_nifti
from deepgrow3d_app.volume.nrrd import encode_nrrd, read_nrrd
from deepgrow3d_app.volume.stored import StoredVoxels, to_mask, to_volume
from deepgrow3d_app.volume.volume import Mask, Volume

READERS: dict[str, Callable[[Path], StoredVoxels]] = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_nrrd,
    ".seg.nrrd": read_nrrd,
}
EXTENSIONS = tuple(READERS)


def extension_of(name: str) -> str:
    """The longest of ``EXTENSIONS`` that ``name`` ends with, in lower case; "" where it ends with none."""
    return max((known for known in EXTENSIONS if name.lower().endswith(known)), key=len, default="")


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """The image at ``path``: a ``.nii``, ``.nii.gz`` or ``.nrrd`` file, or a folder with one DICOM series.

    Voxels keep the file's axis order and, where int16 can hold them, their exact values.

    Raises:
        UnreadableVolume: missing, truncated, damaged, or of an unknown format.
        UnsupportedVolume: not one finite, scalar, 3-D image on an invertible grid.
    """
    path = Path(path)
    with _os_errors_named(path.name):
        if path.is_dir():
            return read_dicom_series(path.absolute())  # whose name messages show: '.' has none
    if extension_of(path.name) == ".seg.nrrd":
        raise UnsupportedVolume(path.name, "it is a segmentation", "Send the image that it was drawn on.")
    return to_volume(_read_stored(path), path.name)


def read_mask(path: str | os.PathLike[str]) -> tuple[Mask, Affine]:
    """The label map at ``path``: (uint8 (i, j, k) in the file's axis order, its affine (index to mm, RAS+)).

    A Slicer segmentation (``.seg.nrrd``) is a label map where none of its segments overlap; it may
    cover less than the image, so compare the affine too.

    Raises:
        UnreadableVolume: missing, truncated, damaged, or of an unknown format.
        UnsupportedVolume: not 3-D, or a value that is not a whole number from 0 to 255.
    """
    path = Path(path)
    stored = _read_stored(path)
    return to_mask(stored, path.name), stored.affine


def encode_mask(mask: Mask, affine: Affine, extension: str, *, compress: bool = True) -> bytes:
    """The bytes of a file that holds ``mask`` on the grid of ``affine``.

    Args:
        mask: uint8 or bool (i, j, k).
        affine: (4, 4), voxel index to mm in RAS+ world coordinates: that of the source image.
        extension: ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.seg.nrrd``.
        compress: whether the voxels of a NRRD are gzip or raw (OHIF reads raw, Slicer either); the
            two NIfTI extensions say it themselves.

    Raises:
        ValueError: a mask that is not 3-D or not uint8, or another extension.
    """
    if mask.ndim != 3 or mask.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"A mask is uint8 (i, j, k), not {mask.dtype} {mask.shape}.")
    labels = mask.view(np.uint8)
    if extension in (".nrrd", ".seg.nrrd"):
        return encode_nrrd(labels, affine, compress=compress)
    if extension in (".nii", ".nii.gz"):
        return encode_nifti(labels, affine, compress=extension == ".nii.gz")
    raise ValueError(f"Cannot write '{extension}'. Choose one of {', '.join(EXTENSIONS)}.")


def encode_volume(volume: Volume) -> bytes:
    """The bytes of a ``.nii.gz`` file that holds ``volume``, voxel for voxel on its grid."""
    return encode_nifti(volume.array, volume.affine, compress=True, slope=volume.slope, intercept=volume.intercept)


def write_mask(mask: Mask, affine: Affine, path: str | os.PathLike[str], *, compress: bool = True) -> None:
    """Write ``mask`` to ``path`` in the format of its extension; see :func:`encode_mask`.

    Whoever opens ``path`` meanwhile sees the old file or the new one, whole; so does a machine
    that lost its power.

    Raises:
        ValueError: a mask that is not 3-D or not uint8, or an extension that cannot be written.
        OSError: the disk is full or the folder cannot be written to; ``path`` is then as it was.
    """
    path = Path(path)
    content = encode_mask(mask, affine, extension_of(path.name) or path.suffix, compress=compress)
    replace_file(path, io.BytesIO(content))


def _read_stored(path: Path) -> StoredVoxels:
    """What the reader for ``path`` finds there, with the file system's refusals as UnreadableVolume."""
    read = READERS.get(extension_of(path.name))
    if read is None:
        raise UnreadableVolume(
            path.name, f"'{path.suffix}' is not a format that it can have", _remedy_for_suffix(path.suffix)
        )
    with _os_errors_named(path.name):
        if not path.exists():
            raise UnreadableVolume(path.name, "there is no such file", "Check the name.")
        if not path.is_file():  # a pipe would wait for ever
            raise UnreadableVolume(path.name, "it is not a file", "Send an image file.")
        return read(path)


def _remedy_for_suffix(suffix: str) -> str:
    if suffix.lower() == ".nhdr":
        return "Its voxels lie in another file: save it as one .nrrd file."
    if suffix.lower() == ".dcm":
        return "Give the folder that holds the whole DICOM series."
    return "Send .nii, .nii.gz or .nrrd, or a folder with one DICOM series."


@contextlib.contextmanager
def _os_errors_named(name: str) -> Iterator[None]:
    """Turns an OSError into UnreadableVolume, without the folder that its message would show."""
    try:
        yield
    except OSError as error:
        raise UnreadableVolume(name, f"it cannot be opened ({error.strerror})", "Check its permissions.") from error
