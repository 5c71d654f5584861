"""An evaluation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from deepgrow3d_app.evaluation.results import Results
from deepgrow3d_app.evaluation.summary import Series, Summary, reported_clicks, series_of


def overview(results: Results) -> Table:
    """Means over all trials: a row for every method and user, Dice at the reported clicks in columns.

    Then NSD after the last click, NoC85 with the share that fails to get there, median seconds of an answer.
    """
    reported = reported_clicks(results.setting.protocol.click_count)
    series = series_of(results)
    title = Text(f"{results.data}: mean Dice over {len(series[0].by_case())} structures")
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("method", overflow="fold")
    for n in reported:
        table.add_column(f"@{n}", justify="right", min_width=5, no_wrap=True)
    for name in ("NSD", "NoC85", "failed", "s"):
        table.add_column(name, justify="right", min_width=max(4, len(name)), no_wrap=True)
    means = [one.mean() for one in series]
    best = {n: max(mean.dice[n - 1] for mean in means) for n in reported}
    for one, mean in zip(series, means, strict=True):
        scores = [(n, mean.dice[n - 1]) for n in reported]
        table.add_row(
            Text(one.title),
            *(Text(f"{dice:.3f}", style="bold" if dice == best[n] else "") for n, dice in scores),
            f"{mean.nsd[-1]:.3f}",
            f"{mean.noc85:.1f}",
            f"{mean.failed85:.0%}",
            f"{mean.p50_s:.2f}",
        )
    return table


def by_structure(series: Series, click_count: int) -> Table:
    """The structures of one series in rows: Dice at the reported clicks; NSD and HD95 after the last one."""
    reported = reported_clicks(click_count)
    title = Text(f"{series.title}: Dice, NSD and HD95 (mm)")
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("structure", overflow="fold")
    # Where the terminal is narrow, names are broken and never a figure.
    for name, width in (("ml", 6), *((f"@{n}", 5) for n in reported), ("NSD", 5), ("HD95", 4), ("NoC85", 5)):
        table.add_column(name, justify="right", min_width=width, no_wrap=True)
    for row in [*series.by_structure(), series.mean()]:
        table.add_row(*_cells(row, reported), style="bold" if row.name == "mean" else None)
    return table


def _cells(row: Summary, reported: Sequence[int]) -> list[str | Text]:
    return [
        Text(row.name if row.structures == 1 or row.name == "mean" else f"{row.name} ({row.structures} cases)"),
        f"{row.volume_ml:.1f}",
        *(f"{row.dice[n - 1]:.3f}" for n in reported),
        f"{row.nsd[-1]:.3f}",
        f"{row.hd95_mm[-1]:.1f}",
        f"{row.noc85:.1f}",
    ]
