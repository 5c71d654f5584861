import contextlib
import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deepgrow3d_app.cli.app import PlainProgress, app, console
from deepgrow3d_app.cli.predict import predict
from deepgrow3d_app.cli.train import TELLING_S
from deepgrow3d_app.errors import InvalidRequest, LabelMismatch, TrainingError
from deepgrow3d_app.training import ranks, run
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


@pytest.mark.parametrize(
    "error", [TrainingError("a case of mine is damaged"), ranks.ToldByTheFirst("told by the first")]
)
def test_a_process_beside_the_first_tells_what_happened_to_it_alone(tmp_path, monkeypatch, error):
    def fail(request, plan, folder, ranks, report, tell):
        tell("left out: a case")
        raise error

    waited: list[float] = []
    second = ranks.Ranks(1, 2, torch.device("cpu"))
    monkeypatch.setattr(ranks, "joined", lambda: contextlib.nullcontext(second))
    monkeypatch.setattr(run, "run_training", fail)
    monkeypatch.setattr(time, "sleep", waited.append)
    done = CliRunner().invoke(app, ["train", "cases", "--steps", "1", "--output", str(tmp_path)])
    assert done.output == ""  # no bar, and no word of cases: both are the first process's
    if isinstance(error, ranks.ToldByTheFirst):
        assert isinstance(done.exception, SystemExit)
        assert done.exit_code == 1
        assert waited == [TELLING_S], "torchrun ends the first process once another one ends"
    else:
        assert done.exception is error, "which becomes a line on stderr"


def test_a_negative_seed_of_a_comparison_is_refused():
    done = CliRunner().invoke(app, ["compare", "a", "b", "--seed", "-1"])
    assert done.exit_code == 2
    assert "equal to 0" in done.stderr
