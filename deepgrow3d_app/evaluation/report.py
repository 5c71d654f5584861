"""One page for people: tables, curves and the worst pictures of an evaluation, in a file that needs no network."""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy.optimize import isotonic_regression

from deepgrow3d_app.evaluation.picture import WorstPicture
from deepgrow3d_app.evaluation.results import Results, User
from deepgrow3d_app.evaluation.summary import NOC_CAP, Series, Summary, reported_clicks, series_of
from deepgrow3d_app.volume.atomic_file import replace_file

TEMPLATE = "report.html.j2"
AREA_CLICKS = (5, 15)
PALETTE_SIZE = 8
"""Colours that the template's style sheet knows, as ``c0``, ``c1`` ..."""
SCORES: tuple[tuple[str, Callable[[Summary], tuple[float, ...]]], ...] = (
    ("Dice", lambda summary: summary.dice),
    ("NSD", lambda summary: summary.nsd),
)


def write_report(results: Results, pictures: Sequence[WorstPicture], file: Path) -> None:
    """Write one self-contained HTML page: styles, curves and pictures are in it, and it runs no script.

    Args:
        results: with at least one trial.
        pictures: shown in this order.
        file: is replaced at once or not at all.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
    environment.filters["hd95"] = lambda mm: "∞" if mm is None else f"{mm:.1f} mm"
    series = series_of(results)
    users = list(dict.fromkeys(s.user for s in series))
    columns = table_columns(results.setting.protocol.click_count)
    page = environment.get_template(TEMPLATE).render(
        results=results,
        protocol=results.setting.protocol,
        noc_cap=NOC_CAP,
        first=series[0],
        columns=columns,
        column_groups=[list(group) for _, group in itertools.groupby(columns, lambda column: column.group)],
        palette_size=PALETTE_SIZE,
        overall=[table_rows([(s.title, s.mean()) for s in series if s.user == user], columns) for user in users],
        structure_charts=structure_charts(series[0]),
        mean_charts=mean_charts(series) if len(series) > 1 else [],
        tables=[StructureTable.of(s, columns) for s in series],
        pictures=pictures,
    )
    replace_file(file, io.BytesIO(page.encode()))


# Tables


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers.

    Attributes:
        group: the heading that it shares with its neighbours.
        title: its own heading.
        value: takes the number from a row's summary.
        decimals: shown.
        is_low_best: whether small numbers are good ones.
        is_score: whether the number goes from 0 to 1, so that its cell is tinted by it.
        is_share: whether the number is shown in percent.
    """

    group: str
    title: str
    value: Callable[[Summary], float]
    decimals: int = 2
    is_low_best: bool = False
    is_score: bool = False
    is_share: bool = False

    def text(self, summary: Summary) -> str:
        """The number as the cell shows it."""
        value = self.value(summary)
        if math.isinf(value):
            return "∞"
        return f"{100 * value:.0f} %" if self.is_share else f"{value:.{self.decimals}f}"


def table_columns(click_count: int) -> list[Column]:
    """The columns of every table, as far as ``click_count`` clicks fill them."""

    def at(curve: Callable[[Summary], Sequence[float]], clicks: int) -> Callable[[Summary], float]:
        return lambda summary: curve(summary)[clicks - 1]

    def area(clicks: int) -> Callable[[Summary], float]:
        return lambda summary: summary.area(clicks) or 0.0

    clicks = reported_clicks(click_count)
    return [
        *(Column("Dice after clicks", str(n), at(lambda s: s.dice, n), is_score=True) for n in clicks),
        *(Column("NSD after clicks", str(n), at(lambda s: s.nsd, n), is_score=True) for n in clicks),
        *(Column("area under Dice", f"1-{n}", area(n)) for n in AREA_CLICKS if n <= click_count),
        Column("NoC85", "clicks", lambda s: s.noc85, 1, is_low_best=True),
        Column("NoC85", "failed", lambda s: s.failed85, is_low_best=True, is_share=True),
        Column("NoC90", "clicks", lambda s: s.noc90, 1, is_low_best=True),
        Column("NoC90", "failed", lambda s: s.failed90, is_low_best=True, is_share=True),
        Column("HD95", "mm", at(lambda s: s.hd95_mm, click_count), 1, is_low_best=True),
        Column("seconds", "p50", lambda s: s.p50_s, is_low_best=True),
        Column("seconds", "p95", lambda s: s.p95_s, is_low_best=True),
    ]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a table shows of one number.

    Attributes:
        text: the number.
        score: 0 to 1, of a score; it tints the cell.
        is_best: no other row shows a better number, and some row shows a worse one.
    """

    text: str
    score: float | None
    is_best: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: its name, the summary that it shows, and its numbers."""

    name: str
    summary: Summary
    cells: tuple[Cell, ...]


def table_rows(summaries: Sequence[tuple[str, Summary]], columns: Sequence[Column]) -> list[Row]:
    """Named summaries as rows that compete for the best number of each column."""
    cells: list[list[Cell]] = [[] for _ in summaries]
    for column in columns:
        values = [column.value(summary) for _, summary in summaries]
        texts = [column.text(summary) for _, summary in summaries]
        best = texts[values.index(min(values) if column.is_low_best else max(values))]
        for row, value, text in zip(cells, values, texts, strict=True):
            is_best = text == best and len(set(texts)) > 1  # equal as shown is equally good
            row.append(Cell(text, value if column.is_score else None, is_best))
    return [Row(name, summary, tuple(row)) for (name, summary), row in zip(summaries, cells, strict=True)]


@dataclass(frozen=True, slots=True)
class StructureTable:
    """The structures of one series.

    Attributes:
        series: whose.
        structures: a row for each, and one for their mean.
        cases: a row for each structure of each case, where a structure stands for several; else none.
    """

    series: Series
    structures: list[Row]
    cases: list[Row]

    @classmethod
    def of(cls, series: Series, columns: Sequence[Column]) -> StructureTable:
        """The table of ``series``."""

        def plain(name: str, summary: Summary) -> Row:
            return table_rows([(name, summary)], columns)[0]

        structures = series.by_structure()
        rows = [plain(summary.name, summary) for summary in structures]
        cases = series.by_case()
        several = cases if len(cases) > len(structures) else []
        return cls(series, [*rows, plain("mean", series.mean())], [plain(s.name, s) for s in several])


# Curves


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: beside its end.
        values: after each click, 0 to 1.
        colour: 0 to ``PALETTE_SIZE - 1``; ``None`` for the line that stands out.
        user: the line of the noisy user is dashed.
        are_clicks_given: whether the clicks come from another method's answers; such a line is dotted.
    """

    name: str
    values: tuple[float, ...]
    colour: int | None = None
    user: User = "perfect"
    are_clicks_given: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """The name of a curve, right of the plot at ``y``; the curve ends at ``end_y``."""

    curve: Curve
    text: str
    y: float
    end_y: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A score over clicks, in units of the drawing (pixels at full size, y downwards).

    Attributes:
        title: above it.
        curves: those drawn last lie on top.
    """

    title: str
    curves: tuple[Curve, ...]

    width = 560
    height = 340
    left, top, bottom = 34, 10, 304
    line_height = 13.5
    letter_width = 6.1

    @property
    def right(self) -> float:
        """Where the plot ends and the names begin: they get what the longest needs, up to half the width."""
        longest = max(len(curve.name) for curve in self.curves) + len("0.00 ")
        return self.width - min(longest * self.letter_width + 24, self.width / 2)

    @property
    def ticks(self) -> list[float]:
        """The scores that have a line, from 1 down to one below all values: tenths, or fifths of a long scale."""
        least = min(min(curve.values) for curve in self.curves)
        step = 1 if least >= 0.5 else 2
        return [tenths / 10 for tenths in range(10, min(math.floor(10 * least / step) * step, 8) - 1, -step)]

    def x(self, click: int) -> float:
        """Of the click with this number; a single one is at the right end."""
        last = len(self.curves[0].values)
        return self.right - (last - click) / max(last - 1, 1) * (self.right - self.left - 8)

    def y(self, value: float) -> float:
        """Of a score."""
        lowest = self.ticks[-1]
        return self.bottom - (value - lowest) / (1 - lowest) * (self.bottom - self.top)

    def points(self, curve: Curve) -> str:
        """The corners of its line, as SVG wants them."""
        return " ".join(f"{self.x(n):.1f},{self.y(value):.1f}" for n, value in enumerate(curve.values, start=1))

    @property
    def clicks(self) -> list[int]:
        """The numbers of clicks below the plot."""
        last = len(self.curves[0].values)
        return [n for n in range(1, last + 1) if last <= 15 or n == 1 or n % 5 == 0]

    @property
    def labels(self) -> list[Label]:
        """As near to the ends of their curves as they fit without overlap.

        Where they are too many, those of the curves that end lowest are kept, and that of the one that stands out.
        """
        fitting = int((self.bottom - self.top) / self.line_height)
        by_need = sorted(self.curves, key=lambda curve: (curve.colour is not None, curve.values[-1]))
        shown = sorted(by_need[:fitting], key=lambda curve: -curve.values[-1])
        ends = np.array([self.y(curve.values[-1]) for curve in shown])
        # Least squares under the order with equal gaps: an isotonic regression once the gaps are taken out.
        gaps = self.line_height * np.arange(len(shown))
        places = np.clip(isotonic_regression(ends - gaps).x, self.top, self.bottom - gaps[-1]) + gaps
        letters = round((self.width - self.right - 24) / self.letter_width)
        return [
            Label(curve, _shortened(f"{curve.values[-1]:.2f} {curve.name}", letters), float(y), float(end_y))
            for curve, y, end_y in zip(shown, places, ends, strict=True)
        ]


def _shortened(text: str, letters: int) -> str:
    """Without its middle where it is too long: names of series differ at either end."""
    tail = letters // 3
    return text if len(text) <= letters else f"{text[: letters - tail - 1].rstrip()}…{text[-tail:].lstrip()}"


def structure_charts(series: Series) -> list[Chart]:
    """Dice and NSD of each structure of ``series``, and their mean."""
    structures = series.by_structure()
    charts = []
    for title, score in SCORES:
        thin = [Curve(s.name, score(s), number % PALETTE_SIZE) for number, s in enumerate(structures)]
        thick = (
            Curve("mean", score(series.mean())) if len(structures) > 1 else Curve(structures[0].name, thin[0].values)
        )
        charts.append(Chart(f"{title}, {series.title}", (*thin, thick) if len(thin) > 1 else (thick,)))
    return charts


def mean_charts(series: Sequence[Series]) -> list[Chart]:
    """Dice and NSD of all series, each the mean over its structures."""
    methods = list(dict.fromkeys(s.method for s in series))
    return [
        Chart(
            f"{title}, mean of each method",
            tuple(
                Curve(s.title, score(s.mean()), methods.index(s.method) % PALETTE_SIZE, s.user, s.clicks_of != s.method)
                for s in series
            ),
        )
        for title, score in SCORES
    ]
