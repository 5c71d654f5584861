import numpy as np
import pytest

from deepgrow3d_app.errors import LabelMismatch
from deepgrow3d_app.serving.label_grid import read_label
from deepgrow3d_app.volume.files import write_mask
from deepgrow3d_app.volume.volume import Volume

OBLIQUE = np.array(
    [[0.0, -1.6, 0.6, 30.0], [2.0, 0.0, 0.0, -7.5], [0.0, 1.2, 0.8, 100.0], [0.0, 0.0, 0.0, 1.0]]
)  # 2 x 2 x 1 mm, turned about two axes


@pytest.fixture
def image():
    return Volume(np.zeros((5, 6, 7), np.int16), OBLIQUE, name="ct.nii.gz")


@pytest.fixture
def mask():
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[2, 3, 4] = 1
    mask[3, 3, 4] = 2
    return mask


def shifted(affine, offset):
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ offset
    return moved


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd", ".seg.nrrd"])
def test_a_label_on_the_grid_of_its_image_is_taken_as_it_is(image, mask, extension, tmp_path):
    path = tmp_path / f"label{extension}"
    write_mask(mask, OBLIQUE, path)
    assert np.array_equal(read_label(path, image), mask)


def test_bare_bytes_run_along_i_first(image, tmp_path):
    path = tmp_path / "label.bin"
    path.write_bytes(bytes([0, 0, 9]) + bytes(5 * 6 * 7 - 3))
    label = read_label(path, image)
    assert label[2, 0, 0] == 9
    assert label.sum() == 9


@pytest.mark.parametrize("n_bytes", [0, 5 * 6 * 7 - 1, 5 * 6 * 7 + 1])
def test_bare_bytes_of_another_number_are_refused(image, n_bytes, tmp_path):
    path = tmp_path / "label.bin"
    path.write_bytes(bytes(n_bytes))
    with pytest.raises(LabelMismatch, match=f"has {n_bytes} bytes, .* has 210 voxels"):
        read_label(path, image)


def test_another_shape_is_refused(image, mask, tmp_path):
    path = tmp_path / "label.nii.gz"
    write_mask(mask[:-1], OBLIQUE, path)
    with pytest.raises(LabelMismatch, match=r"has 4 x 6 x 7 voxels, its image 'ct\.nii\.gz' has 5 x 6 x 7"):
        read_label(path, image)


@pytest.mark.parametrize(
    "affine", [shifted(OBLIQUE, [0.5, 0, 0]), np.diag([2.0, 2.0, 1.0, 1.0]), OBLIQUE @ np.diag([1.1, 1.0, 1.0, 1.0])]
)
def test_another_place_orientation_or_spacing_is_refused(image, mask, affine, tmp_path):
    path = tmp_path / "label.nii.gz"
    write_mask(mask, affine, path)
    with pytest.raises(LabelMismatch, match="orientation, spacing or origin differs"):
        read_label(path, image)


def test_a_rounded_header_is_no_difference(image, mask, tmp_path):
    path = tmp_path / "label.nii.gz"
    write_mask(mask, shifted(OBLIQUE, [0.1, -0.1, 0.1]), path)
    assert np.array_equal(read_label(path, image), mask)


def test_a_segmentation_that_covers_a_part_is_put_in_its_place(image, mask, tmp_path):
    path = tmp_path / "label.seg.nrrd"
    write_mask(mask[1:4, 2:5, 3:6], shifted(OBLIQUE, [1, 2, 3]), path)
    assert np.array_equal(read_label(path, image), mask)


def test_a_segmentation_may_reach_beyond_the_image_with_background_only(image, mask, tmp_path):
    path = tmp_path / "label.seg.nrrd"
    write_mask(np.pad(mask, 2), shifted(OBLIQUE, [-2, -2, -2]), path)
    assert np.array_equal(read_label(path, image), mask)
    write_mask(np.pad(mask, 2, constant_values=1), shifted(OBLIQUE, [-2, -2, -2]), path)
    with pytest.raises(LabelMismatch, match="voxels outside its image"):
        read_label(path, image)


def test_a_segmentation_of_another_place_is_refused(image, mask, tmp_path):
    path = tmp_path / "label.seg.nrrd"
    write_mask(mask, shifted(OBLIQUE, [50, 0, 0]), path)
    with pytest.raises(LabelMismatch, match="voxels outside its image"):
        read_label(path, image)


def test_a_segmentation_between_the_voxels_is_refused(image, mask, tmp_path):
    path = tmp_path / "label.seg.nrrd"
    write_mask(mask[1:4], shifted(OBLIQUE, [1.4, 0, 0]), path)
    with pytest.raises(LabelMismatch, match="Set its reference geometry"):
        read_label(path, image)
