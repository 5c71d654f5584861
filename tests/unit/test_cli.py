import numpy as np
import pytest

from deepgrow3d_app.cli.app import PlainProgress, console
from deepgrow3d_app.cli.predict import predict
from deepgrow3d_app.errors import InvalidRequest, LabelMismatch
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


def test_a_label_map_of_several_structures_is_no_previous_mask(tmp_path):
    write_mask(np.zeros((4, 5, 6), np.uint8), np.eye(4), tmp_path / "image.nii")
    labels = np.arange(120, dtype=np.uint8).reshape(4, 5, 6) // 40
    write_mask(labels, np.eye(4), tmp_path / "before.nii")
    with pytest.raises(InvalidRequest, match=r"holds 2 structures\. Give the mask of one"):
        predict(tmp_path / "image.nii", ["1,1,1"], tmp_path / "out.nii", previous=tmp_path / "before.nii")


def test_a_folder_is_no_output(tmp_path):
    (tmp_path / "out.nii").mkdir()
    with pytest.raises(InvalidRequest, match=r"out\.nii' is a folder"):
        predict(tmp_path / "image.nii", ["1,1,1"], tmp_path / "out.nii")


def test_brackets_in_names_are_printed(capsys):
    console.print("mask[a].nii.gz: written")
    assert capsys.readouterr().out == "mask[a].nii.gz: written\n"


def test_a_file_gets_a_line_now_and_then(capsys):
    plain = PlainProgress(every_s=0.0)
    plain.tell("5%")
    assert capsys.readouterr().out == "5%\n"
    PlainProgress(every_s=60.0).tell("6%")
    assert capsys.readouterr().out == ""
