"""The shipped network on a case that it has never seen, clicked by the protocol."""

import numpy as np
import pytest

from deepgrow3d_app.cli import DEFAULT_CHECKPOINT
from deepgrow3d_app.evaluation.protocol import NetworkMethod, annotate, repeat
from deepgrow3d_app.evaluation.random_walker import RandomWalker
from deepgrow3d_app.evaluation.run import load_case
from deepgrow3d_app.model.predictor import Predictor

ORGANS = ("liver", "spleen", "kidney_right", "kidney_left")
CLICKS = (1, 3, 5)


@pytest.mark.slow
def test_the_shipped_network_is_sensible_and_better_than_a_random_walker_with_the_same_clicks():
    root = DEFAULT_CHECKPOINT.parents[3]
    case = load_case(root / "sample-data" / "reference" / "ct-trunk")
    network, walker = NetworkMethod(Predictor.from_checkpoint(DEFAULT_CHECKPOINT)), RandomWalker()
    scores: dict[str, list[list[float]]] = {network.name: [], walker.name: []}
    for organ in ORGANS:
        truth = case.labels == case.values[organ]
        rounds = list(annotate(network, case.volume, truth, max(CLICKS)))
        walked = list(repeat(walker, case.volume, truth, [r.click for r in rounds]))
        for method, answers in ((network.name, rounds), (walker.name, walked)):
            scores[method].append([answers[n - 1].dice for n in CLICKS])
    ours, theirs = (np.mean(scores[method], axis=0) for method in (network.name, walker.name))
    assert ours[CLICKS.index(5)] >= 0.70
    assert (ours > theirs).all(), f"network {ours}, random walker {theirs} after {CLICKS} clicks"
