from collections.abc import Callable, Sequence

import pytest

from deepgrow3d_app.evaluation.results import CaseRecord, MethodRecord, Protocol, Results, Round, Setting, Trial


@pytest.fixture
def make_trial() -> Callable[..., Trial]:
    """A trial with the given Dice after each click; its NSD is half of it, its HD95 10 mm for each Dice that lacks."""

    def make(
        dice: Sequence[float],
        structure="liver",
        case="a",
        method="network",
        clicks_of=None,
        user="perfect",
        voxels=1000,
        seconds=0.5,
        hand=0,
    ):
        rounds = tuple(Round((n, 0, 0), n % 2 == 0, d, d / 2, 10.0 * (1 - d), seconds) for n, d in enumerate(dice))
        return Trial(case, structure, method, clicks_of or method, user, voxels, voxels * 0.008, rounds, hand)

    return make


@pytest.fixture
def make_results() -> Callable[..., Results]:
    """Results that hold the given trials; methods, users and cases are those that they name, in their order."""

    def make(trials: Sequence[Trial], nsd_tolerance_mm=2.0, noise_mm=4.0, data="bodies"):
        setting = Setting(
            version="0.0",
            protocol=Protocol(len(trials[0].rounds), nsd_tolerance_mm, noise_mm),
            methods=tuple(MethodRecord(name, {"kind": "made up"}) for name in _once(t.method for t in trials)),
            users=tuple(_once(t.user for t in trials)),
            cases=tuple(CaseRecord(name, ((1, 1), (1, 1))) for name in _once(t.case for t in trials)),
            structures=(),
        )
        return Results(
            format="deepgrow3d-evaluation-1",
            created="2025-11-01T12:30:00+00:00",
            command="deepgrow3d evaluate bodies",
            data=data,
            machine="an abacus, 2 cores",
            setting=setting,
            trials=tuple(trials),
        )

    return make


def _once(names):
    return list(dict.fromkeys(names))
