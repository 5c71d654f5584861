"""The shipped network against the figures that were committed with it, on cases that it has never seen."""

from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cli import DEFAULT_CHECKPOINT
from deepgrow3d_app.evaluation.network_method import NetworkMethod
from deepgrow3d_app.evaluation.results import Protocol, Results
from deepgrow3d_app.evaluation.run import Evaluation, run_evaluation

ROOT = Path(__file__).parents[2]
CLICKS = 5
MAX_FALL = 0.02


@pytest.mark.slow
@pytest.mark.parametrize("data", ["ct-trunk", "mr-hippocampus"])
def test_mean_dice_at_5_clicks_is_not_below_the_committed_figure(data: str, tmp_path: Path) -> None:
    committed = Results.load(ROOT / "docs" / "evaluation" / data / "results.json")
    network = NetworkMethod(DEFAULT_CHECKPOINT)
    assert committed.setting.methods[0].details["sha256"] == network.record.details["sha256"], (
        "The committed figures are those of another checkpoint: run `make evaluation`."
    )
    sources = find_cases(ROOT / "sample-data" / "reference" / data)
    structures = tuple(dict.fromkeys(trial.structure for trial in committed.trials))
    evaluation = Evaluation(sources, [network], structures, protocol=Protocol(click_count=CLICKS))
    expected = {
        (trial.case, trial.structure): trial.rounds[CLICKS - 1].dice
        for trial in committed.trials
        if (trial.method, trial.user) == ("network", "perfect")
    }

    results = run_evaluation(evaluation, tmp_path / "out", lambda progress: None)

    dice = {(trial.case, trial.structure): trial.rounds[-1].dice for trial in results.trials}
    assert dice.keys() <= expected.keys()
    fall = np.mean([expected[key] - value for key, value in dice.items()])
    assert fall <= MAX_FALL, f"mean Dice at {CLICKS} clicks fell by {fall:.3f}: {dice}"
