"""Whether one evaluation is better than another: the same structures, pair by pair."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.evaluation.results import Protocol, Results, Trial, User
from deepgrow3d_app.evaluation.summary import reported_clicks

Score = Literal["Dice", "NSD"]
RESAMPLES = 10_000
CONFIDENCE = 0.95

MIN_UNITS = 6
"""Of fewer, no interval tells: six is where equal signs of all differences get a p below 0.05 (2 * 0.5**6)."""
SCORES: tuple[Score, ...] = ("Dice", "NSD")
PairKey = tuple[str, str, User]
"""Case, structure and user: what trials must share to be compared."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One structure of one case, annotated by one user with A and with B.

    Attributes:
        a, b: a trial for each hand of the user, the same hands in the same order.
    """

    a: tuple[Trial, ...]
    b: tuple[Trial, ...]

    @property
    def case(self) -> str:
        """Of both."""
        return self.a[0].case

    @property
    def structure(self) -> str:
        """Of both."""
        return self.a[0].structure

    @property
    def user(self) -> User:
        """Of both."""
        return self.a[0].user

    def difference(self, score: Score, clicks: int) -> float:
        """B minus A after ``clicks`` clicks, mean over the hands: positive where B is better."""
        return _score(self.b, score, clicks) - _score(self.a, score, clicks)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the mean of a score after some number of clicks.

    Attributes:
        score, clicks: which mean.
        a, b: the unweighted means over all pairs, 0 to 1.
        difference: ``b - a``.
        units: that could be resampled.
        interval: the 95 % bootstrap interval (low, high) of the difference; ``None`` of a single unit.
    """

    score: Score
    clicks: int
    a: float
    b: float
    difference: float
    units: int
    interval: tuple[float, float] | None

    @property
    def verdict(self) -> Literal["better", "worse", "no clear difference"]:
        """What B is, where the interval lies on one side of 0 and stands on ``MIN_UNITS`` or more."""
        if self.interval is not None and self.units >= MIN_UNITS:
            low, high = self.interval
            if low > 0:
                return "better"
            if high < 0:
                return "worse"
        return "no clear difference"


@dataclass(frozen=True, slots=True)
class UserComparison:
    """The pairs of one user.

    Attributes:
        user: who clicked.
        hands: that both evaluations have of this user: only theirs are compared.
        hands_a, hands_b: that A and B have.
        pairs: in the order of A.
        resampled: what the bootstrap draws.
        units: how many of those there are.
        changes: Dice at the reported clicks, then NSD.
    """

    user: User
    hands: int
    hands_a: int
    hands_b: int
    pairs: tuple[Pair, ...]
    resampled: Literal["structures", "cases"]
    units: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A and B, side by side.

    Attributes:
        method_a, method_b: the names of the methods compared.
        clicks: the numbers of clicks at which they are.
        users: one part for each user that both have; perfect and noisy users are never mixed.
        only_in_a, only_in_b: what a user annotated with one method alone.
    """

    method_a: str
    method_b: str
    clicks: tuple[int, ...]
    users: tuple[UserComparison, ...]
    only_in_a: tuple[PairKey, ...]
    only_in_b: tuple[PairKey, ...]


def compare(
    a: Results,
    b: Results,
    generator: np.random.Generator,
    method_a: str | None = None,
    method_b: str | None = None,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two evaluations on the structures that they share, each method with its own clicks.

    The interval is that of the percentile bootstrap of paired differences (Efron and Tibshirani, "An
    introduction to the bootstrap", 1993). Structures of one patient resemble each other, so with several
    cases it resamples cases with all their structures (Field and Welsh, "Bootstrapping clustered data",
    J. R. Stat. Soc. B 69, 2007). With one case it resamples structures, and says nothing of other patients.

    Args:
        a, b: the old and the new evaluation: differences are B minus A.
        generator: of the resampling; a fixed seed makes it repeatable.
        method_a, method_b: names; the first method of each by default.
        resamples: of the bootstrap.

    Raises:
        InvalidRequest: a method is unknown; nothing can be paired; a structure has another size in B, so
            that its truth is another one; or the protocols differ in what the scores depend on.
    """
    method_a = _method(a, method_a, "A")
    method_b = _method(b, method_b, "B")
    trials_a, trials_b = _own_trials(a, method_a), _own_trials(b, method_b)
    pairs = [pair for key in trials_a if key in trials_b for pair in _paired(trials_a[key], trials_b[key])]
    if not pairs:
        raise InvalidRequest(
            f"Nothing can be compared: '{method_a}' of A has {_some(trials_a)}, '{method_b}' of B has "
            f"{_some(trials_b)}, and they share none. "
            "Evaluate the same structures of the same cases for the same user."
        )
    users = tuple(dict.fromkeys(pair.user for pair in pairs))
    _check_protocols(a.setting.protocol, b.setting.protocol, users)
    _check_truth(pairs)
    clicks = reported_clicks(min(a.setting.protocol.click_count, b.setting.protocol.click_count))
    return Comparison(
        method_a=method_a,
        method_b=method_b,
        clicks=clicks,
        users=tuple(
            _compare_user(
                [pair for pair in pairs if pair.user == user],
                (_hands(trials_a, user), _hands(trials_b, user)),
                clicks,
                generator,
                resamples,
            )
            for user in users
        ),
        only_in_a=tuple(key for key in trials_a if key not in trials_b),
        only_in_b=tuple(key for key in trials_b if key not in trials_a),
    )


def bootstrap_intervals(
    differences: npt.NDArray[np.float64], units: Sequence[str], generator: np.random.Generator, resamples: int
) -> npt.NDArray[np.float64]:
    """95 % percentile intervals of the mean over rows when whole units are drawn with replacement.

    Args:
        differences: float64 (rows, columns).
        units: of each row, the name of the unit that it is drawn with; at least two different ones.
        generator: source of randomness.
        resamples: how often to draw.

    Returns:
        float64 (2, columns): lower and upper ends. All columns see the same draws.
    """
    names, unit_of_row = np.unique(np.asarray(units), return_inverse=True)
    sums = np.zeros((len(names), differences.shape[1]))
    np.add.at(sums, unit_of_row, differences)
    rows = np.bincount(unit_of_row)
    # How often each unit is drawn, instead of which ones: means are then one matrix product.
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    means = (counts @ sums) / (counts @ rows)[:, None]
    tail = (1 - CONFIDENCE) / 2
    return np.asarray(np.quantile(means, (tail, 1 - tail), axis=0))


def _method(results: Results, wanted: str | None, side: str) -> str:
    names = [method.name for method in results.setting.methods]
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise InvalidRequest(f"There is no method '{wanted}' in {side}. It has: {', '.join(names)}.")
    return wanted


def _own_trials(results: Results, method: str) -> dict[PairKey, list[Trial]]:
    """The trials of a method with its own clicks: one for each hand."""
    found: dict[PairKey, list[Trial]] = {}
    for trial in results.trials:
        if trial.method == trial.clicks_of == method:
            found.setdefault((trial.case, trial.structure, trial.user), []).append(trial)
    return found


def _paired(a: Sequence[Trial], b: Sequence[Trial]) -> list[Pair]:
    """Of one structure, the hands that both evaluations have: a hand misses alike in both. None if they share none."""
    hands_b = {trial.hand: trial for trial in b}
    shared = [trial for trial in a if trial.hand in hands_b]
    return [Pair(tuple(shared), tuple(hands_b[trial.hand] for trial in shared))] if shared else []


def _some(keys: Iterable[PairKey]) -> str:
    listed = [" ".join(key) for key in itertools.islice(keys, 4)]
    return ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "") if listed else "no trial with its own clicks"


def _check_protocols(a: Protocol, b: Protocol, users: Sequence[User]) -> None:
    rules = [("tolerance of the NSD", a.nsd_tolerance_mm, b.nsd_tolerance_mm)]
    if "noisy" in users:
        rules.append(("noise of the clicks", a.noise_mm, b.noise_mm))
    for name, in_a, in_b in rules:
        if in_a != in_b:
            raise InvalidRequest(
                f"The {name} is {in_a:g} mm in A and {in_b:g} mm in B: their scores mean different things. "
                f"Evaluate again with one of the two."
            )


def _check_truth(pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        in_a, in_b = pair.a[0].voxels, pair.b[0].voxels
        if in_a != in_b:
            raise InvalidRequest(
                f"'{pair.structure}' of '{pair.case}' has {in_a} voxels in A and {in_b} in B: "
                "the truth is another one. Evaluate both on the same labels."
            )


def _hands(trials: dict[PairKey, list[Trial]], user: User) -> int:
    return max(len(each) for key, each in trials.items() if key[2] == user)


def _compare_user(
    pairs: Sequence[Pair],
    hands: tuple[int, int],
    clicks: Sequence[int],
    generator: np.random.Generator,
    resamples: int,
) -> UserComparison:
    """The ``pairs`` of one user, who has so many ``hands`` in A and in B."""
    columns = [(score, n) for score in SCORES for n in clicks]
    a = np.array([[_score(pair.a, score, n) for score, n in columns] for pair in pairs])
    b = np.array([[_score(pair.b, score, n) for score, n in columns] for pair in pairs])
    cases = [pair.case for pair in pairs]
    several = len(set(cases)) > 1
    units = cases if several else [pair.structure for pair in pairs]
    unit_count = len(set(units))
    ends = bootstrap_intervals(b - a, units, generator, resamples) if unit_count > 1 else None
    changes = [
        Change(
            score,
            n,
            a=float(a[:, column].mean()),
            b=float(b[:, column].mean()),
            difference=float((b - a)[:, column].mean()),
            units=unit_count,
            interval=None if ends is None else (float(ends[0, column]), float(ends[1, column])),
        )
        for column, (score, n) in enumerate(columns)
    ]
    return UserComparison(
        user=pairs[0].user,
        hands=len(pairs[0].a),
        hands_a=hands[0],
        hands_b=hands[1],
        pairs=tuple(pairs),
        resampled="cases" if several else "structures",
        units=unit_count,
        changes=tuple(changes),
    )


def _score(trials: Sequence[Trial], score: Score, clicks: int) -> float:
    answers = [trial.rounds[clicks - 1] for trial in trials]
    return statistics.fmean(answer.dice if score == "Dice" else answer.nsd for answer in answers)
