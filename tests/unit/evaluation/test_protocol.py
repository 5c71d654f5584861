"""An 8 x 8 x 8 case whose clicks and scores can be checked on paper."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.metrics import Reference
from deepgrow3d_app.evaluation.protocol import annotate, given_clicks, noisy_user, perfect_user
from deepgrow3d_app.evaluation.results import MethodRecord, Trial
from deepgrow3d_app.evaluation.summary import summarise
from deepgrow3d_app.volume.volume import Volume

VOLUME = Volume(np.zeros((8, 8, 8), dtype=np.int16), np.eye(4))
TRUTH = np.zeros((8, 8, 8), dtype=bool)
TRUTH[1:4, 1:4, 1:4] = True  # 27 voxels, middle (2, 2, 2)
REFERENCE = Reference(TRUTH, VOLUME.spacing_mm)


@dataclass
class Cubes:
    """Answers with the cube of 3 voxels around each foreground click, less that around each background click."""

    seen: list[tuple[tuple[Click, ...], int | None]] = field(default_factory=list)
    record: MethodRecord = field(default_factory=lambda: MethodRecord("cubes", {}))

    def segment(self, volume, clicks, previous):
        self.seen.append((tuple(clicks), None if previous is None else int(previous.sum())))
        mask = np.zeros(volume.shape, dtype=np.uint8)
        for click in clicks:
            around = tuple(slice(max(0, p - 1), p + 2) for p in click.index)
            mask[around] = click.is_positive
        return mask


@dataclass
class Stubborn:
    """Always answers with the same box of 3 x 3 x 6 voxels: the structure and as much again."""

    record: MethodRecord = field(default_factory=lambda: MethodRecord("stubborn", {}))

    def segment(self, volume, clicks, previous):
        mask = np.zeros(volume.shape, dtype=np.uint8)
        mask[1:4, 1:4, 1:7] = 1
        return mask


def rounds_of(method, next_click, click_count, reference=REFERENCE):
    return [round_ for round_, _ in annotate(method, VOLUME, reference, next_click, click_count)]


def clicks_of(rounds):
    return [None if r.index is None else Click(r.index, r.is_positive) for r in rounds]


def test_one_click_in_the_middle_solves_the_cube_and_nothing_is_clicked_after():
    method = Cubes()
    rounds = rounds_of(method, perfect_user(VOLUME), 3)
    assert clicks_of(rounds) == [Click((2, 2, 2)), None, None]
    assert [(r.dice, r.nsd, r.hd95_mm) for r in rounds] == [(1, 1, 0)] * 3
    assert method.seen == [((Click((2, 2, 2)),), None)]


def test_an_error_is_clicked_as_background_and_never_twice():
    rounds = rounds_of(Stubborn(), perfect_user(VOLUME), 3)
    assert [r.dice for r in rounds] == pytest.approx([2 * 27 / (27 + 54)] * 3, abs=1e-5)
    first, second, third = clicks_of(rounds)
    assert first == Click((2, 2, 2))
    assert second == Click((2, 2, 5), is_positive=False)  # the middle of the 27 voxels too many
    assert third is not None
    assert not third.is_positive
    assert third.index != second.index


def test_a_case_on_paper():
    """Two cubes of 27 voxels, (1..3)^3 and (5..7)^3, each with its middle at depth 2: Dice, NSD and NoC of two clicks.

    The first click takes the middle of the first cube (ties go to the lower index), and the answer is
    that cube: Dice 2 * 27 / (27 + 54) = 2/3. Its surface is right wherever it is, and it is half of the
    truth's: of three equal surfaces (answer, truth's first half, truth's second half), two agree: NSD 2/3.
    The second click takes the other cube: everything agrees. NoC85 = NoC90 = 2.
    """
    truth = TRUTH.copy()
    truth[5:8, 5:8, 5:8] = True
    # At a tolerance of 1 mm: the two cubes' nearest surface elements are sqrt(3) mm apart.
    rounds = rounds_of(Cubes(), perfect_user(VOLUME), 3, Reference(truth, VOLUME.spacing_mm, tolerance_mm=1.0))
    assert clicks_of(rounds) == [Click((2, 2, 2)), Click((6, 6, 6)), None]
    assert [r.dice for r in rounds] == pytest.approx([2 / 3, 1, 1], abs=1e-5)
    assert [r.nsd for r in rounds] == pytest.approx([2 / 3, 1, 1], abs=1e-5)
    # Of the missed cube's surface, the far corner is 4 voxels away in i, j and k.
    assert rounds[0].hd95_mm is not None
    assert 4 < rounds[0].hd95_mm <= 4 * np.sqrt(3)
    assert rounds[1].hd95_mm == 0
    summary = summarise(Trial("case", "cubes", "cubes", "cubes", "perfect", 54, 0.054, tuple(rounds)))
    assert (summary.noc85, summary.noc90, summary.failed85) == (2, 2, 0)


def test_the_previous_answer_is_handed_on():
    two = TRUTH.copy()
    two[6, 6, 6] = True
    method = Cubes()
    rounds_of(method, perfect_user(VOLUME), 2, Reference(two, VOLUME.spacing_mm))
    assert [previous for _, previous in method.seen] == [None, 27]


def test_repeated_clicks_are_given_one_more_each_round():
    own = rounds_of(Stubborn(), perfect_user(VOLUME), 3)
    method = Cubes()
    rounds = rounds_of(method, given_clicks(own), 4)
    assert clicks_of(rounds) == [*clicks_of(own), None]
    assert [len(given) for given, _ in method.seen] == [1, 2, 3]
    assert rounds[3].dice == rounds[2].dice


def test_a_noisy_user_misses_keeps_the_sign_and_clicks_no_voxel_twice():
    user = noisy_user(VOLUME, 2.0, np.random.default_rng(0))
    rounds = rounds_of(Stubborn(), user, 20)
    clicks = clicks_of(rounds)
    assert len({click.index for click in clicks}) == 20
    assert clicks[0] != Click((2, 2, 2))
    assert [click.is_positive for click in clicks] == [True] + [False] * 19
    assert all(0 <= position < 8 for click in clicks for position in click.index)


def test_a_structure_that_is_never_answered_scores_nothing():
    rounds = rounds_of(Cubes(), lambda truth, mask, taken: None, 2)
    assert [(r.dice, r.nsd, r.hd95_mm, r.seconds) for r in rounds] == [(0, 0, None, 0)] * 2
