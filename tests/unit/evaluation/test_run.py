import numpy as np
import pytest

from deepgrow3d_app.errors import LabelMismatch
from deepgrow3d_app.evaluation.run import load_case
from deepgrow3d_app.volume.files import write_mask


def test_labels_of_the_same_shape_elsewhere_are_no_reference(tmp_path):
    (tmp_path / "structures.json").write_text('{"structures": {"liver": {"value": 1}}}')
    for name in ("image", "labels"):
        write_mask(np.ones((4, 5, 6), np.uint8), np.eye(4), tmp_path / f"{name}.nii.gz")
    assert load_case(tmp_path).labels.shape == (4, 5, 6)
    write_mask(np.ones((4, 5, 6), np.uint8), np.diag((-1.0, 1.0, 1.0, 1.0)), tmp_path / "labels.nii.gz")
    with pytest.raises(LabelMismatch, match=r"labels.nii.gz' lies up to .* voxels from its image 'image.nii.gz'"):
        load_case(tmp_path)
