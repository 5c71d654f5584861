import pytest
import torch

from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.retraining.gate import Score, Scores
from deepgrow3d_app.retraining.judging import Court, blended, judge

SPEC = ModelSpec(channels=(4, 8, 8), patch_shape=(32, 32, 32))


@pytest.fixture
def networks():
    """A network and the one that was trained on from it: all weights 0, and all 1."""
    names = weights_of(build_network(SPEC))
    return [
        Checkpoint(SPEC, {name: torch.full_like(weight, value) for name, weight in names.items()}, {"steps": "7"})
        for value in (0.0, 1.0)
    ]


class FakeCourt(Court):
    """Scores by the share of trained weights, as ``known`` says."""

    known: dict[float, tuple[float, float]]

    def __init__(self, known):
        super().__init__(site=[], reference=[])
        object.__setattr__(self, "known", known)

    def scores(self, network, is_stopped):
        share = round(float(next(iter(network.weights.values())).flatten()[0]), 2)
        site, reference = self.known[share]
        one = [Score(structures=1, dice={1: value}) for value in (site, reference)]
        return Scores(site=one[0], reference=one[1])


def judged(networks, known, is_forced=False):
    told: list[str] = []
    parent, trained = networks
    judged = judge(FakeCourt(known), parent, trained, is_forced=is_forced, tell=told.append, is_stopped=lambda: False)
    assert judged is not None
    decision, candidate = judged
    return decision, round(float(next(iter(candidate.weights.values())).flatten()[0]), 2), told


def test_all_of_what_was_learnt_where_nothing_is_forgotten(networks):
    known = {0.0: (0.5, 0.8), 1.0: (0.6, 0.8), 0.7: (0.58, 0.8), 0.4: (0.55, 0.8)}
    decision, share, _ = judged(networks, known)
    assert (decision.is_published, share, decision.candidate_share) == (True, 1.0, 1.0)


def test_less_of_it_where_something_is_forgotten(networks):
    decision, share, told = judged(networks, {0.0: (0.5, 0.8), 1.0: (0.6, 0.7), 0.7: (0.58, 0.78), 0.4: (0.55, 0.795)})
    assert (decision.is_published, share, decision.candidate_share) == (True, 0.4, 0.4)
    assert len(told) == 4


def test_of_those_that_pass_the_one_that_gains_most_over_what_it_forgets(networks):
    known = {0.0: (0.5, 0.8), 1.0: (0.6, 0.791), 0.7: (0.595, 0.799), 0.4: (0.56, 0.8)}
    decision, share, told = judged(networks, known)
    assert (decision.is_published, share, decision.candidate_share) == (True, 0.7, 0.7)
    assert len(told) == 4


def test_where_nothing_passes_the_decision_is_about_all_of_it(networks):
    decision, share, _ = judged(networks, {0.0: (0.5, 0.8), 1.0: (0.6, 0.7), 0.7: (0.5, 0.78)})
    assert (decision.is_published, share) == (False, 1.0)


def test_forced_is_forced(networks):
    decision, share, _ = judged(networks, {0.0: (0.5, 0.8), 1.0: (0.1, 0.1)}, is_forced=True)
    assert (decision.is_published, share) == (True, 1.0)


def test_whoever_is_stopped_decides_nothing(networks):
    parent, trained = networks
    court = Court(site=[], reference=[])
    stopped = judge(court, parent, trained, is_forced=False, tell=lambda line: None, is_stopped=lambda: True)
    assert stopped is None


def test_a_blend_is_the_weighted_mean_and_says_so(networks):
    parent, trained = networks
    blend = blended(parent, trained, 0.25)
    assert all(torch.all(weight == 0.25) for weight in blend.weights.values())
    assert blend.origin["steps"] == "7"
    assert blend.origin["share"].startswith("0.25 of the trained weights")
