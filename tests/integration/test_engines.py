"""PyTorch and OpenVINO compute the same masks of real structures."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cli import DEFAULT_CHECKPOINT
from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.metrics import Reference, dice
from deepgrow3d_app.evaluation.protocol import annotate, perfect_user
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.openvino_engine import OpenVinoEngine
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.volume.volume import Mask, Volume

REFERENCE = Path(__file__).parents[2] / "sample-data" / "reference"
CLICKS = 5
LEAST_DICE = 0.995


class BothEngines:
    """Answers with PyTorch, and keeps how well OpenVINO agrees when it is asked the same.

    Both start from what PyTorch answered to earlier clicks.
    """

    record = MethodRecord("both engines", {})

    def __init__(self, folder: Path) -> None:
        checkpoint = Checkpoint.load(DEFAULT_CHECKPOINT)
        self._torch = Predictor(checkpoint.spec, TorchEngine(checkpoint.network(), torch.device("cpu")))
        self._openvino = Predictor(checkpoint.spec, OpenVinoEngine.of(checkpoint, folder))
        self.agreement: list[float] = []

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        answer = self._torch.predict(volume, clicks, previous).mask
        self.agreement.append(dice(self._openvino.predict(volume, clicks, previous).mask, answer))
        return answer


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> BothEngines:
    return BothEngines(tmp_path_factory.mktemp("engines"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "structures"),
    [
        ("ct-trunk", ("liver", "spleen", "kidney_left", "aorta", "pancreas", "gallbladder", "adrenal_gland_left")),
        ("mr-hippocampus", ("anterior hippocampus", "posterior hippocampus")),
    ],
)
def test_both_engines_draw_the_same_mask(engines: BothEngines, data: str, structures: tuple[str, ...]) -> None:
    case = find_cases(REFERENCE / data)[0].load()
    engines.agreement.clear()
    for structure in structures:
        reference = Reference(case.truth(structure), case.volume.spacing_mm)
        list(annotate(engines, case.volume, reference, perfect_user(case.volume), CLICKS))
    assert len(engines.agreement) == CLICKS * len(structures)
    assert min(engines.agreement) >= LEAST_DICE, engines.agreement
