"""A comparison as tables for people: what became of the means, and of each structure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepgrow3d_app.evaluation.compare import MIN_UNITS, SCORES, Comparison, UserComparison


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print, for each user, the means with a verdict on B, and all structures from the most gained to the most lost."""
    # Text, not markup: names come from files, and may contain brackets.
    console.print(Text(f"A: {comparison.method_a}\nB: {comparison.method_b}"))
    for part in comparison.users:
        console.print(Text(f"\n{_who(part)}: means over {_count(len(part.pairs), 'structure')}", style="bold"))
        console.print(_means_table(part))
        console.print(Text(_remark(part), style="dim"))
        console.print(Text(f"\n{part.user} user: B - A of each structure", style="bold"))
        console.print(_structures_table(part, comparison.clicks))
    for name, keys in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        for (case, user), group in itertools.groupby(sorted(keys, key=lambda k: (k[0], k[2])), lambda k: (k[0], k[2])):
            structures = ", ".join(structure for _, structure, _ in group)
            console.print(Text(f"\nOnly in {name}: {case}, {user} user: {structures}", style="yellow"))


def _who(part: UserComparison) -> str:
    """``perfect user``; of a user with several hands, how many of them were compared."""
    if max(part.hands_a, part.hands_b) == 1:
        return f"{part.user} user"
    own = "" if part.hands_a == part.hands_b else f", of {part.hands_a} in A and {part.hands_b} in B"
    return f"{part.user} user ({_count(part.hands, 'hand')}{own})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _remark(part: UserComparison) -> str:
    """What the intervals stand on."""
    drawn = _count(part.units, part.resampled.removesuffix("s"))
    if part.units < MIN_UNITS:
        return f"{drawn}: too few for a verdict, which takes {MIN_UNITS}."
    return f"Intervals from resampling {drawn}."


def _means_table(part: UserComparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("score")
    for heading in ("clicks", "A", "B", "B - A", "95 % interval"):
        table.add_column(heading, justify="right")
    table.add_column("B is")
    for before, change in zip((None, *part.changes), part.changes, strict=False):
        interval = "" if change.interval is None else f"{change.interval[0]:+.3f} to {change.interval[1]:+.3f}"
        style = {"better": "green", "worse": "red", "no clear difference": "dim"}[change.verdict]
        if before is not None and before.score != change.score:
            table.add_section()
        table.add_row(
            change.score,
            str(change.clicks),
            f"{change.a:.3f}",
            f"{change.b:.3f}",
            f"{change.difference:+.3f}",
            interval,
            Text(change.verdict, style=style),
        )
    return table


def _structures_table(part: UserComparison, clicks: Sequence[int]) -> Table:
    """B minus A of each structure, from the most gained (Dice after the last reported click) to the most lost."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("structure", overflow="fold")
    for score in SCORES:
        for n in clicks:
            table.add_column(f"{score}\n@{n}", justify="right")
    with_case = part.resampled == "cases"
    for pair in sorted(part.pairs, key=lambda pair: -pair.difference("Dice", clicks[-1])):
        name = f"{pair.case}: {pair.structure}" if with_case else pair.structure
        table.add_row(Text(name), *(_signed(pair.difference(score, n)) for score in SCORES for n in clicks))
    return table


def _signed(difference: float) -> Text:
    shown = round(difference, 2)
    if shown == 0:
        return Text("0.00", style="dim")
    return Text(f"{shown:+.2f}", style="green" if shown > 0 else "red")
