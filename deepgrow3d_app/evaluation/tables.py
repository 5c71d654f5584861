"""An evaluation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from deepgrow3d_app.evaluation.results import Results
from deepgrow3d_app.evaluation.summary import Series, Summary, reported_clicks, series_of


def overview(results: Results) -> Table:
    """Means over all trials: a row for every method and user, Dice at the reported clicks in columns.

    Then NSD after the last click, NoC85 with the share that fails to get there, median seconds of an answer.
    """
    reported = reported_clicks(results.setting.protocol.click_count)
    series = series_of(results)
    table = Table(
        title=f"{results.data}: mean Dice over {len(series[0].trials)} structures", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("method")
    for n in reported:
        table.add_column(f"@{n}", justify="right")
    for name in ("NSD", "NoC85", "failed", "s"):
        table.add_column(name, justify="right")
    means = [one.mean() for one in series]
    best = {n: max(mean.dice[n - 1] for mean in means) for n in reported}
    for one, mean in zip(series, means, strict=True):
        scores = [(n, mean.dice[n - 1]) for n in reported]
        table.add_row(
            one.title,
            *(f"[bold]{dice:.3f}[/]" if dice == best[n] else f"{dice:.3f}" for n, dice in scores),
            f"{mean.nsd[-1]:.3f}",
            f"{mean.noc85:.1f}",
            f"{mean.failed85:.0%}",
            f"{mean.p50_s:.2f}",
        )
    return table


def by_structure(series: Series, click_count: int) -> Table:
    """The structures of one series in rows: Dice at the reported clicks; NSD and HD95 after the last one."""
    reported = reported_clicks(click_count)
    table = Table(title=f"{series.title}: Dice, NSD and HD95 (mm)", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("structure")
    table.add_column("ml", justify="right")
    for n in reported:
        table.add_column(f"@{n}", justify="right")
    for name in ("NSD", "HD95", "NoC85", "NoC90"):
        table.add_column(name, justify="right")
    for row in [*series.by_structure(), series.mean()]:
        table.add_row(*_cells(row, reported), style="bold" if row.name == "mean" else None)
    return table


def _cells(row: Summary, reported: Sequence[int]) -> list[str]:
    return [
        row.name if row.trials == 1 or row.name == "mean" else f"{row.name} ({row.trials} cases)",
        f"{row.volume_ml:.1f}",
        *(f"{row.dice[n - 1]:.3f}" for n in reported),
        f"{row.nsd[-1]:.3f}",
        f"{row.hd95_mm[-1]:.1f}",
        f"{row.noc85:.1f}",
        f"{row.noc90:.1f}",
    ]
