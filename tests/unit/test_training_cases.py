"""The cases that the shipped network is trained on, made from generated volumes."""

import json

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from benchmarks.training_cases import halved, with_drawn, write_case


@pytest.fixture
def data(tmp_path):
    """A volume of 4 x 4 x 2 voxels of 2 x 2 x 5 mm, LPS, under two names."""
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    image = np.arange(32, dtype=np.int16).reshape(4, 4, 2)
    labels = np.zeros((4, 4, 2), np.uint8)
    labels[0, 0, 0] = labels[0, 1, 0] = 1  # half of a block
    labels[2, 2, 1] = 2  # a quarter of one
    for name in ("ct-lung1", "ct-spleen8"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        nibabel.save(Nifti1Image(image, affine), folder / "image.nii.gz")
        nibabel.save(Nifti1Image(labels, affine), folder / "labels.nii.gz")
        (folder / "structures.json").write_text(json.dumps({"structures": {"lesion": 1, "speck": 2}}))
    return tmp_path / "data"


def test_a_halved_volume_shows_the_mean_where_the_block_was():
    affine = np.array([[0.0, -2.0, 0.0, 7.0], [3.0, 0.0, 0.0, -1.0], [0.0, 0.0, 5.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    image = np.arange(32, dtype=np.int16).reshape(4, 4, 2)
    coarse, _, coarse_affine = halved(image, np.zeros(image.shape, np.uint8), affine)
    assert coarse.shape == (2, 2, 2)
    assert coarse[1, 0, 1] == image[2:4, 0:2, 1].mean()
    middle = (affine @ (2.5, 0.5, 1, 1))[:3]  # of the block's four voxels
    np.testing.assert_allclose((coarse_affine @ (1, 0, 1, 1))[:3], middle)


def test_a_halved_label_has_half_of_its_block(data):
    source = Nifti1Image.from_filename(data / "ct-lung1" / "labels.nii.gz")
    labels = np.asanyarray(source.dataobj)
    _, coarse, _ = halved(np.zeros(labels.shape, np.int16), labels, source.affine)
    assert {tuple(voxel) for voxel in np.argwhere(coarse)} == {(0, 0, 0)}
    assert coarse[0, 0, 0] == 1


def test_labels_of_the_source_win_over_drawn_ones_and_these_over_later_ones(tmp_path):
    labels = np.array([[[1, 0, 0, 0]]], np.uint8)
    for folder, name, drawn in (("labels", "organ", [2, 2, 0, 0]), ("next", "vessel", [3, 3, 3, 0])):
        (tmp_path / folder).mkdir()
        image = Nifti1Image(np.array([[drawn]], np.uint8), np.eye(4))
        nibabel.save(image, tmp_path / folder / "case.nii.gz")
        (tmp_path / folder / "case.json").write_text(json.dumps({name: max(drawn)}))
    folders = (tmp_path / "labels", tmp_path / "next")
    together, names = with_drawn(labels, {"lesion": 1}, np.eye(4), "case", folders)
    assert together.ravel().tolist() == [1, 2, 3, 0]
    assert names == {"lesion": 1, "organ": 2, "vessel": 3}
    assert with_drawn(labels, {"lesion": 1}, np.eye(4), "another", folders)[1] == {"lesion": 1}
    for part, affine in ((labels[..., :2], np.eye(4)), (labels, np.diag([-1.0, 1, 1, 1]))):
        with pytest.raises(ValueError, match="another grid"):
            with_drawn(part, {}, affine, "case", folders)
    for taken in ({"vessel": 1}, {"lesion": 2}):
        with pytest.raises(ValueError, match="a name or a value that case has already"):
            with_drawn(labels, taken, np.eye(4), "case", folders)


def test_a_written_case_is_halved_or_set_right_by_its_name(data, tmp_path):
    assert write_case(data, tmp_path / "cases", "ct-lung1", ()) == 1  # the speck is lost
    assert write_case(data, tmp_path / "cases", "ct-spleen8", ()) == 2
    lung = Nifti1Image.from_filename(tmp_path / "cases" / "ct-lung1" / "image.nii.gz")
    assert lung.shape == (2, 2, 2)
    assert lung.header.get_zooms() == (4.0, 4.0, 5.0)
    spleen = Nifti1Image.from_filename(tmp_path / "cases" / "ct-spleen8" / "image.nii.gz")
    assert nibabel.aff2axcodes(spleen.affine) == ("R", "P", "S")  # the source's header says L
    names = json.loads((tmp_path / "cases" / "ct-spleen8" / "structures.json").read_text())
    assert names == {"structures": {"lesion": 1, "speck": 2}}
