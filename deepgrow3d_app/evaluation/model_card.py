"""The model card: what a network was made of, how well it answers, and where it does not.

Everything that can be computed is taken from the results of evaluations; only intended use, general limits
and the published figures of other models are text of the template.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import TypeAdapter

from deepgrow3d_app.errors import InvalidRequest, UnreadableVolume
from deepgrow3d_app.evaluation.ablation import Ablation
from deepgrow3d_app.evaluation.results import Results, User
from deepgrow3d_app.evaluation.summary import NOC_CAP, Series, Summary, reported_clicks, series_of
from deepgrow3d_app.model.checkpoint import lineage
from deepgrow3d_app.model.correction import LATE_CLICKS, MISS_MM, OPPOSITE
from deepgrow3d_app.model.spec import ModelSpec

WORSENING = 0.005
"""A fall in Dice from one number of clicks to the next that the card tells of."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where data come from.

    Attributes:
        what: image and structures.
        labels_by: people, or which model.
        source: where it was published.
        licence: its name.
    """

    what: str
    labels_by: str
    source: str
    licence: str


UNKNOWN_SOURCE = DataSource("not recorded", "not recorded", "not recorded", "not recorded")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A set of cases that the network has seen, as its checkpoint says."""

    name: str
    cases: int
    structures: int


@dataclass(frozen=True, slots=True)
class Beaten:
    """Where a baseline with its own clicks is better than the network.

    Attributes:
        structure, user, method: of the baseline's trial.
        clicks: numbers of clicks at which it is better.
    """

    structure: str
    user: str
    method: str
    clicks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Worsening:
    """A structure that loses Dice from ``before`` to ``after`` clicks of the perfect user."""

    structure: str
    before: int
    after: int
    loss: float


@dataclass(frozen=True, slots=True)
class Hands:
    """The noisy user's hands, and how far they stay behind the perfect user.

    Attributes:
        rows: the means over all structures, one for each hand.
        below_perfect: Dice that the mean over the hands lacks, at the reported clicks.
        standard_error: of that mean over the hands, at the reported clicks.
    """

    rows: tuple[Summary, ...]
    below_perfect: tuple[float, ...]
    standard_error: tuple[float, ...]

    @classmethod
    def of(cls, perfect: Series, noisy: Series, reported: Sequence[int]) -> Hands | None:
        """Of one method; ``None`` of a single hand, which tells nothing of its luck."""
        if noisy.hands < 2:
            return None
        rows = tuple(noisy.of_hand(hand).mean() for hand in range(noisy.hands))
        exact, mean = perfect.mean(), noisy.mean()
        return cls(
            rows,
            tuple(exact.dice[n - 1] - mean.dice[n - 1] for n in reported),
            tuple(statistics.stdev(row.dice[n - 1] for row in rows) / math.sqrt(len(rows)) for n in reported),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The scores on one set of cases.

    Attributes:
        results: of its evaluation.
        source: of its cases.
        reported: the numbers of clicks in the tables.
        series: every method and user.
        own: those of the series in which a method answers its own clicks, by user; the first is the network's.
        hands: of the noisy user, answered by the network; ``None`` of fewer than two.
        beaten: where a baseline is better.
        worsening: where more clicks do not help.
    """

    results: Results
    source: DataSource
    reported: tuple[int, ...]
    series: tuple[Series, ...]
    own: dict[User, tuple[Series, ...]]
    hands: Hands | None
    beaten: tuple[Beaten, ...]
    worsening: tuple[Worsening, ...]


def read_sources(file: Path) -> dict[str, DataSource]:
    """What is known of data, by the name of their folder.

    Raises:
        UnreadableVolume: missing or damaged.
    """
    try:
        return TypeAdapter(dict[str, DataSource]).validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        fault = " ".join(str(error).split())[:200]
        raise UnreadableVolume(
            str(file), fault, 'Write {"NAME": {"what", "labels_by", "source", "licence"}}.'
        ) from error


def model_card(
    evaluations: Sequence[Results], sources: dict[str, DataSource], ablation: Ablation | None, command: str
) -> str:
    """The card of the network that all ``evaluations`` have as their first method, as Markdown.

    Args:
        evaluations: in the order in which the card shows them; at least one.
        sources: what is known of data.
        ablation: what parts of the recipe are worth, where that was measured.
        command: that makes the card.

    Raises:
        InvalidRequest: the evaluations' first methods are not one checkpoint.
    """
    network = evaluations[0].setting.methods[0]
    for results in evaluations:
        first = results.setting.methods[0]
        if "sha256" not in network.details or first.details.get("sha256") != network.details["sha256"]:
            raise InvalidRequest(
                f"'{results.data}' was evaluated with '{first.name}' first, which is not the checkpoint of the card "
                f"({network.details.get('checkpoint', network.name)}). Evaluate all cases with one checkpoint."
            )
    environment = Environment(
        loader=PackageLoader("deepgrow3d_app.evaluation", "."),
        autoescape=False,  # noqa: S701 - Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    origin = json.loads(network.details["origin"])
    training = training_data(origin)
    return environment.get_template("model_card.md.j2").render(
        network=network,
        spec=ModelSpec.from_json(network.details["spec"]),
        origin=origin,
        runs=lineage(origin),
        training=training,
        sources=sources,
        unknown=UNKNOWN_SOURCE,
        sections=[_section(results, sources) for results in evaluations],
        seen={data.name for data in training},
        noc_cap=NOC_CAP,
        late_clicks=LATE_CLICKS,
        opposite=OPPOSITE,
        miss_mm=MISS_MM,
        ablation=ablation,
        command=command,
    )


def training_data(origin: dict[str, str]) -> list[TrainingData]:
    """What the checkpoint's ``origin`` says that it and those it started from have seen."""
    seen: dict[str, TrainingData] = {}
    for run in reversed(lineage(origin)):
        for entry in json.loads(run.get("data", "[]")):
            seen.setdefault(entry["name"], TrainingData(entry["name"], int(entry["cases"]), int(entry["structures"])))
    return list(seen.values())


def _section(results: Results, sources: dict[str, DataSource]) -> Section:
    reported = reported_clicks(results.setting.protocol.click_count)
    series = tuple(series_of(results))
    own: dict[User, tuple[Series, ...]] = {
        user: tuple(one for one in series if one.user == user and one.clicks_of == one.method)
        for user in results.setting.users
    }
    return Section(
        results=results,
        source=sources.get(results.data, UNKNOWN_SOURCE),
        reported=reported,
        series=series,
        own=own,
        hands=Hands.of(own["perfect"][0], own["noisy"][0], reported) if {"perfect", "noisy"} <= own.keys() else None,
        beaten=tuple(entry for one in own.values() for entry in _beaten(one, reported)),
        worsening=tuple(_worsening(own["perfect"][0].by_structure(), reported)) if "perfect" in own else (),
    )


def _beaten(series: Sequence[Series], reported: Sequence[int]) -> list[Beaten]:
    network, *baselines = series
    found = []
    for baseline in baselines:
        rows = [*zip(network.by_structure(), baseline.by_structure(), strict=True)]
        for ours, theirs in [*rows, (network.mean(), baseline.mean())]:
            clicks = tuple(n for n in reported if theirs.dice[n - 1] > ours.dice[n - 1])
            if clicks:
                found.append(Beaten(ours.name, baseline.user, baseline.method, clicks))
    return found


def _worsening(rows: Sequence[Summary], reported: Sequence[int]) -> list[Worsening]:
    return [
        Worsening(row.name, before, after, row.dice[before - 1] - row.dice[after - 1])
        for row in rows
        for before, after in itertools.pairwise(reported)
        if row.dice[before - 1] - row.dice[after - 1] > WORSENING
    ]
