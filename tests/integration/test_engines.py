"""PyTorch and OpenVINO compute the same masks of real structures."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cli import DEFAULT_CHECKPOINT
from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.protocol import perfect_user
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.openvino_engine import OpenVinoEngine
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.volume.volume import Mask

REFERENCE = Path(__file__).parents[2] / "sample-data" / "reference"
CLICKS = 5
LEAST_DICE = 0.995

Engines = tuple[Predictor, Predictor]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    checkpoint = Checkpoint.load(DEFAULT_CHECKPOINT)
    torch_engine = TorchEngine(checkpoint.network(), torch.device("cpu"))
    openvino_engine = OpenVinoEngine.of(checkpoint, tmp_path_factory.mktemp("engines"))
    return Predictor(checkpoint.spec, torch_engine), Predictor(checkpoint.spec, openvino_engine)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "structures"),
    [
        ("ct-trunk", ("liver", "spleen", "kidney_left", "aorta", "pancreas", "gallbladder", "adrenal_gland_left")),
        ("mr-hippocampus", ("anterior hippocampus", "posterior hippocampus")),
    ],
)
def test_both_engines_draw_the_same_mask(engines: Engines, data: str, structures: tuple[str, ...]) -> None:
    """Asked the same: what one engine answered to earlier clicks is what both start from."""
    torch_predictor, openvino_predictor = engines
    case = find_cases(REFERENCE / data)[0].load()
    agreement = []
    for structure in structures:
        truth = case.truth(structure)
        user = perfect_user(case.volume)
        clicks: list[Click] = []
        mask: Mask | None = None
        for _ in range(CLICKS):
            click = user(truth, mask, [click.index for click in clicks])
            assert click is not None
            clicks.append(click)
            answer = torch_predictor.predict(case.volume, clicks, mask).mask
            agreement.append(dice(answer, openvino_predictor.predict(case.volume, clicks, mask).mask))
            mask = answer
    assert min(agreement) >= LEAST_DICE, agreement


def dice(mask: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return float(2 * (mask & other).sum() / (mask.sum() + other.sum()))
