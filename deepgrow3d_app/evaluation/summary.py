"""From every click of every structure to the few numbers that tables show."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepgrow3d_app.evaluation.results import Results, Round, Trial, User
from deepgrow3d_app.volume.atomic_file import replace_file

REPORTED_CLICKS = (1, 3, 5, 10, 15)
NOC_CAP = 20
"""Clicks that a structure counts for which does not reach the wanted Dice: the challenge's cap."""
NOC_DICE = (0.85, 0.90)


@dataclass(frozen=True, slots=True)
class Summary:
    """One trial, or the unweighted mean over several.

    Attributes:
        name: the structure, or what the mean is over.
        case: of the trials; "" for a mean over several.
        structures: of how many it stands for; in two cases they count twice, under two hands once.
        volume_ml: of the structure.
        dice, nsd: after each click, 0 to 1; the first entry is after the first click.
        hd95_mm: after each click, infinite where an answer was empty.
        noc85, noc90: clicks needed for a Dice of 0.85 and 0.90, ``NOC_CAP`` where they are not reached.
        failed85, failed90: share of trials that do not reach them.
        p50_s, p95_s: percentiles of the seconds that an answer took.
    """

    name: str
    case: str
    structures: int
    volume_ml: float
    dice: tuple[float, ...]
    nsd: tuple[float, ...]
    hd95_mm: tuple[float, ...]
    noc85: float
    noc90: float
    failed85: float
    failed90: float
    p50_s: float
    p95_s: float

    def area(self, clicks: int) -> float | None:
        """Area under Dice over the clicks 1 to ``clicks`` (trapezoids; at most ``clicks - 1``); ``None`` if fewer."""
        return area_under(self.dice[:clicks]) if len(self.dice) >= clicks else None


def area_under(curve: Sequence[float]) -> float:
    """The trapezoid rule with steps of 1: a constant 1 over n points gives n - 1."""
    return float(sum((a + b) / 2 for a, b in itertools.pairwise(curve)))


def clicks_needed(rounds: Sequence[Round], dice: float) -> int | None:
    """NoC: the number of the first click after which the Dice is at least ``dice``; ``None`` beyond ``NOC_CAP``."""
    return next((number for number, r in enumerate(rounds[:NOC_CAP], start=1) if r.dice >= dice), None)


def summarise(trial: Trial) -> Summary:
    """The numbers of one trial."""
    seconds = _answer_seconds([trial])
    noc = [clicks_needed(trial.rounds, dice) for dice in NOC_DICE]
    return Summary(
        name=trial.structure,
        case=trial.case,
        structures=1,
        volume_ml=trial.volume_ml,
        dice=tuple(r.dice for r in trial.rounds),
        nsd=tuple(r.nsd for r in trial.rounds),
        hd95_mm=tuple(float("inf") if r.hd95_mm is None else r.hd95_mm for r in trial.rounds),
        noc85=NOC_CAP if noc[0] is None else noc[0],
        noc90=NOC_CAP if noc[1] is None else noc[1],
        failed85=float(noc[0] is None),
        failed90=float(noc[1] is None),
        p50_s=float(np.percentile(seconds, 50)) if seconds else 0.0,
        p95_s=float(np.percentile(seconds, 95)) if seconds else 0.0,
    )


def mean_of(name: str, trials: Sequence[Trial]) -> Summary:
    """The unweighted mean over ``trials`` (at least one, all of equal length); percentiles are over all answers."""
    each = [summarise(trial) for trial in trials]
    cases = {trial.case for trial in trials}
    seconds = _answer_seconds(trials)

    def curve(values: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(statistics.fmean(at_click) for at_click in zip(*values, strict=True))

    return Summary(
        name=name,
        case=next(iter(cases)) if len(cases) == 1 else "",
        structures=len({(trial.case, trial.structure) for trial in trials}),
        volume_ml=statistics.fmean(s.volume_ml for s in each),
        dice=curve(s.dice for s in each),
        nsd=curve(s.nsd for s in each),
        hd95_mm=curve(s.hd95_mm for s in each),
        noc85=statistics.fmean(s.noc85 for s in each),
        noc90=statistics.fmean(s.noc90 for s in each),
        failed85=statistics.fmean(s.failed85 for s in each),
        failed90=statistics.fmean(s.failed90 for s in each),
        p50_s=float(np.percentile(seconds, 50)) if seconds else 0.0,
        p95_s=float(np.percentile(seconds, 95)) if seconds else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Series:
    """The trials that make one column of a table: one method, one user, one source of clicks.

    Attributes:
        method, clicks_of, user: as in :class:`~deepgrow3d_app.evaluation.results.Trial`.
        trials: in the order of the evaluation.
    """

    method: str
    clicks_of: str
    user: User
    trials: tuple[Trial, ...]

    @property
    def title(self) -> str:
        """``network``, ``random walker, noisy user``, ``graph cut, clicks of network``."""
        clicks = "" if self.clicks_of == self.method else f", clicks of {self.clicks_of}"
        hands = f" ({self.hands} hands)" if self.hands > 1 else ""
        return self.method + clicks + (f", noisy user{hands}" if self.user == "noisy" else "")

    @property
    def hands(self) -> int:
        """How many worked on each structure: all of them on all."""
        return len({trial.hand for trial in self.trials})

    def of_hand(self, hand: int) -> Series:
        """The trials of one hand."""
        return replace(self, trials=tuple(trial for trial in self.trials if trial.hand == hand))

    def by_case(self) -> list[Summary]:
        """A row for each structure of each case, in order of appearance: its trial, or the mean over the hands."""
        grouped: dict[tuple[str, str], list[Trial]] = {}
        for trial in self.trials:
            grouped.setdefault((trial.case, trial.structure), []).append(trial)
        return [mean_of(structure, trials) for (_, structure), trials in grouped.items()]

    def by_structure(self) -> list[Summary]:
        """A row for each structure name, in order of appearance: its trial, or the mean over its cases and hands."""
        grouped: dict[str, list[Trial]] = {}
        for trial in self.trials:
            grouped.setdefault(trial.structure, []).append(trial)
        return [mean_of(name, trials) for name, trials in grouped.items()]

    def mean(self) -> Summary:
        """The unweighted mean over all trials."""
        return replace(mean_of("mean", self.trials), case="")


def series_of(results: Results) -> list[Series]:
    """The columns of ``results``: methods in their order; for each the perfect user, then the noisy one."""
    columns: dict[tuple[str, str, User], list[Trial]] = {}
    for trial in results.trials:
        columns.setdefault((trial.method, trial.clicks_of, trial.user), []).append(trial)
    order = [method.name for method in results.setting.methods]

    def place(column: tuple[str, str, User]) -> tuple[int, bool, bool]:
        method, clicks_of, user = column
        return order.index(method), user == "noisy", clicks_of != method

    return [Series(*column, tuple(columns[column])) for column in sorted(columns, key=place)]


def reported_clicks(click_count: int) -> tuple[int, ...]:
    """The numbers of clicks that tables show, as far as they were made."""
    return tuple(n for n in REPORTED_CLICKS if n <= click_count)


def write_summary(results: Results, file: Path) -> None:
    """Write a CSV file: a row for every structure of every case, and below those of each series their mean.

    Where several hands of the noisy user worked on it, a row is the mean over them.
    """
    reported = reported_clicks(results.setting.protocol.click_count)
    header = ["method", "clicks_of", "user", "hands", "case", "structure", "volume_ml"]
    header += [f"dice_{n}" for n in reported] + [f"nsd_{n}" for n in reported] + [f"hd95_mm_{n}" for n in reported]
    header += ["dice_area_1_5", "dice_area_1_15", "noc85", "noc90", "failed85", "failed90", "p50_s", "p95_s"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    for series in series_of(results):
        for row in [*series.by_case(), series.mean()]:
            curves = [curve[n - 1] for curve in (row.dice, row.nsd, row.hd95_mm) for n in reported]
            areas = ["" if (area := row.area(n)) is None else f"{area:.4f}" for n in (5, 15)]
            rest = [row.noc85, row.noc90, row.failed85, row.failed90, row.p50_s, row.p95_s]
            table.writerow(
                [series.method, series.clicks_of, series.user, series.hands, row.case, row.name]
                + [f"{row.volume_ml:.2f}"]
                + [f"{value:.4f}" for value in curves]
                + areas
                + [f"{value:.4g}" for value in rest]
            )
    replace_file(file, io.BytesIO(text.getvalue().encode()))


def _answer_seconds(trials: Iterable[Trial]) -> list[float]:
    return [r.seconds for trial in trials for r in trial.rounds if r.index is not None]
