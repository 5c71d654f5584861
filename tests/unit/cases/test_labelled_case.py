import numpy as np
import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.labelled_case import BLOCK_VOXELS, structures_in, voxel_counts
from deepgrow3d_app.errors import LabelMismatch, NotFound


def test_a_structure_is_where_its_value_is(case_folder):
    case = find_cases(case_folder)[0].load()
    assert case.truth("block").sum() == 4 * 4 * 4
    assert case.truth("plane")[:, :, 6].all()
    assert case.truth("plane").dtype == np.bool_


def test_an_unknown_structure_is_answered_with_those_there_are(case_folder):
    with pytest.raises(NotFound, match=r"no structure 'liver' in the case 'one'. Name one that it has: block, plane"):
        find_cases(case_folder)[0].load().truth("liver")


def test_labels_on_another_grid_are_refused(case_folder, write_nifti):
    write_nifti(np.ones((8, 8, 8), np.uint8), case_folder / "labels.nii.gz", np.diag((-2.0, 2.0, 2.0, 1.0)))
    with pytest.raises(LabelMismatch, match=r"labels.nii.gz' lies up to 14 voxels from its image"):
        find_cases(case_folder)[0].load()


def test_structures_without_a_voxel_are_none_and_values_without_a_name_get_one():
    labels = np.array([0, 7, 2, 2], np.uint8).reshape(1, 2, 2)
    assert structures_in(labels, {"b": 7, "absent": 1}) == {"label 2": 2, "b": 7}
    assert list(structures_in(labels, {})) == ["label 2", "label 7"]


def test_voxels_are_counted_over_blocks_in_either_memory_order():
    labels = np.zeros((BLOCK_VOXELS + 2, 1, 2), np.uint8)
    labels[-1] = 255
    for order in (labels, np.asfortranarray(labels)):
        counts = voxel_counts(order)
        assert (counts[255], counts.sum()) == (2, labels.size)
