import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from deepgrow3d_app.cli.predict import predict
from deepgrow3d_app.errors import UnreadableVolume
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.volume.files import write_mask


def test_links_that_lead_in_a_circle_are_no_image(tmp_path):
    (tmp_path / "image.nii").symlink_to("image.nii")
    with pytest.raises(UnreadableVolume, match=r"image\.nii': there is no such file"):
        predict(tmp_path / "image.nii", ["1,1,1"], tmp_path / "out.nii")


def test_names_in_another_encoding_than_utf_8_are_printed(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    with open(os.fsencode(tmp_path) + b"/images/m\xfcller.nii", "xb"):
        pass
    command = [sys.executable, "-m", "deepgrow3d_app", "prepare", str(tmp_path), "--output", str(tmp_path / "out")]
    # As in a terminal; in the locale C, Python prints such names as the bytes that they are.
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "left out: m\\udcfcller: Cannot read 'm\\udcfcller.nii'" in ended.stdout
    assert ended.stderr == "Error: No case could be prepared. Mend the faults above, then run again.\n"
    assert ended.returncode == 2


def test_the_millilitres_of_a_tilted_gantry_are_those_of_its_sheared_voxels(tmp_path, capsys, monkeypatch):
    affine = np.diag((2.0, 2.0, 5.0, 1.0))
    affine[1, 2] = 12.0  # edges of 2, 2 and 13 mm: 20 mm3 each, and not 52
    write_mask(np.ones((5, 5, 5), np.uint8), affine, tmp_path / "image.nii")
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[:4] = 1
    answer = SimpleNamespace(mask=mask, crop_s=0.0, network_s=0.0, restore_s=0.0, passes=1, device="cpu")
    predictor = SimpleNamespace(predict=lambda volume, clicks, before: answer)
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda checkpoint: predictor)
    predict(tmp_path / "image.nii", ["1,1,1"], tmp_path / "out.nii")
    assert "100 voxels, 2.0 ml" in capsys.readouterr().out
