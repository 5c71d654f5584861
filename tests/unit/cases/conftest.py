from pathlib import Path

import numpy as np
import pytest
from nibabel import Nifti1Image
from nibabel import save as save_nifti

AFFINE = np.diag((2.0, 2.0, 2.0, 1.0))


def _write_nifti(array, path: Path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_nifti(Nifti1Image(array, affine), path)


@pytest.fixture
def write_nifti():
    """``write_nifti(array, path, affine)``: on a grid of 2 mm in RAS order where no affine is given."""
    return _write_nifti


@pytest.fixture
def block_labels():
    """8 x 8 x 8 voxels: value 1 in a block of 4 x 4 x 4 of them, value 3 in the plane k = 6."""
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[1:5, 1:5, 1:5] = 1
    labels[:, :, 6] = 3
    return labels


@pytest.fixture
def write_pair(block_labels):
    """``write_pair(image_file, labels_file)``: the block labels, and an image of 100 times their values less 50."""

    def write(image: Path, labels: Path, values=block_labels, affine=AFFINE):
        _write_nifti(values.astype(np.int16) * 100 - 50, image, affine)
        _write_nifti(values, labels, affine)

    return write


@pytest.fixture
def case_folder(tmp_path, write_pair):
    """A case folder called ``one`` with the structures block (1) and plane (3)."""
    folder = tmp_path / "one"
    write_pair(folder / "image.nii.gz", folder / "labels.nii.gz")
    (folder / "structures.json").write_text('{"structures": {"block": {"value": 1}, "plane": {"value": 3}}}')
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture
def pairs(tmp_path, write_pair):
    """Four cases a, b, c, d with the structures block (1) and plane (3)."""
    folder = tmp_path / "pairs"
    for name in "abcd":
        write_pair(folder / "images" / f"{name}.nii.gz", folder / "labels" / f"{name}.nii.gz")
    (folder / "structures.json").write_text('{"structures": {"block": 1, "plane": 3}}')
    return folder


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def raising(error):
    def fail(*arguments, **options):
        raise error

    return fail
