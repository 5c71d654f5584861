import numpy as np
import pytest

from deepgrow3d_app.cli.predict import predict
from deepgrow3d_app.errors import LabelMismatch
from deepgrow3d_app.volume.files import write_mask


@pytest.mark.parametrize(
    ("shape", "affine", "told"),
    [
        ((4, 5, 7), np.eye(4), "before.nii' has 4 x 5 x 7 voxels"),
        ((4, 5, 6), np.diag((-1.0, 1.0, 1.0, 1.0)), "before.nii' lies up to"),
    ],
)
def test_a_previous_mask_on_another_grid_is_refused(tmp_path, shape, affine, told):
    write_mask(np.zeros((4, 5, 6), np.uint8), np.eye(4), tmp_path / "image.nii")
    write_mask(np.zeros(shape, np.uint8), affine, tmp_path / "before.nii")
    with pytest.raises(LabelMismatch, match=told):
        predict(tmp_path / "image.nii", ["1,1,1"], tmp_path / "out.nii", previous=tmp_path / "before.nii")
