"""What a process pays for its first click alone."""

import subprocess
import sys

SCRIPT = """
import sys
import numpy as np
import torch
from deepgrow3d_app.click.click import Click
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.volume import Volume

torch.manual_seed(0)
spec = ModelSpec(channels=(4, 8, 8), patch_shape=(16, 16, 16), walker_sigmas=(0.05,))
predictor = Predictor(spec, TorchEngine(build_network(spec)))
voxels = np.random.default_rng(0).integers(-100, 100, (40, 30, 20)).astype(np.int16)
clicks = [Click((20, 15, 10), is_positive=True)]
before = set(sys.modules)
suggestion = predictor.predict(Volume(voxels, np.eye(4)), clicks).suggestion
print(suggestion is not None, sorted(set(sys.modules) - before)[:9])
"""


def test_the_first_click_loads_nothing_more():
    """Once, PyTorch's compiler was loaded for the sake of one of its functions: half a second."""
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert run.stdout.split(maxsplit=1) == ["True", "[]\n"], run.stderr
