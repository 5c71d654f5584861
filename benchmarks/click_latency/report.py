"""The figures as tables, the goals beside what was measured, and all of it as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.click_latency.measurements import Figures, Session
from benchmarks.click_latency.studies import LARGE, NAMES

OURS, UPSTREAM, SAME_NETWORK = "ours", "upstream", "ours, imported"
RATIOS = {SAME_NETWORK: ("same network and weights", 5.0), OURS: ("own networks", 60.0)}
SIXTEEN = 16
GB = 1e9
MAX_RSS_GB = 2.5
MAX_SPREAD = 2.0
BUSY_LOAD = 0.3
PACKAGES = ("torch", "openvino", "monai", "monailabel", "numpy")


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached.

    Attributes:
        what: the figure.
        bound: what it is compared with.
        unit: of both.
        measured: ``None`` where it was not measured.
        is_least: whether the bound is the least that will do; else the most.
    """

    what: str
    bound: float
    unit: str
    measured: float | None
    is_least: bool = False

    @property
    def met(self) -> bool | None:
        """``None`` where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.is_least else self.measured <= self.bound


def goals(figures: Figures) -> list[Goal]:
    """All goals, beside what was measured."""
    large = figures.session(OURS, LARGE)
    crowd = next((one for one in figures.crowds if one.annotators == SIXTEEN), None)
    info = figures.info
    rows = [
        Goal("later click, 512x512x300, p50", 0.5, "s", _of(large, lambda s: s.later_percentile_s(50))),
        Goal("later click, 512x512x300, p95", 0.8, "s", _of(large, lambda s: s.later_percentile_s(95))),
        Goal("first click, 512x512x300.nii.gz, cold", 2.5, "s", _of(large, lambda s: s.first_s)),
        Goal("peak RSS, 512x512x300, all clicks", MAX_RSS_GB, "GB", _of(large, lambda s: s.peak_bytes / GB)),
    ]
    for side, (what, bound) in RATIOS.items():
        rows += [
            Goal(f"upstream / ours, {what}, {study}", bound, "x", ratio(figures, side, study), True) for study in NAMES
        ]
    spread = None if crowd is None or not crowd.seconds else crowd.percentile_s(95) / crowd.percentile_s(50)
    return [
        *rows,
        Goal("/info/ while 10 clicks run, at most", 0.1, "s", None if info is None else max(info.seconds)),
        Goal("16 annotators, errors", 0, "", None if crowd is None else float(len(crowd.errors))),
        Goal("16 annotators, p95 / p50", MAX_SPREAD, "x", spread),
        Goal("16 annotators, peak RSS", MAX_RSS_GB, "GB", None if crowd is None else crowd.peak_bytes / GB),
    ]


def ratio(figures: Figures, side: str, study: str) -> float | None:
    """How many times as long upstream's median later click takes."""
    ours, theirs = figures.session(side, study), figures.session(UPSTREAM, study)
    if ours is None or theirs is None:
        return None
    return theirs.later_percentile_s(50) / ours.later_percentile_s(50)


def print_report(figures: Figures, console: Console) -> None:
    """All tables."""
    if figures.sessions:
        console.print(_sessions_table(figures))
        console.print(
            "p50, p95: of the later clicks. kB: the median answer to them. RSS: of all processes of the server, at "
            "most. x ours: the median later click as a multiple of that of 'ours' on the same volume. 'ours, imported' "
            "has upstream's network and weights, which are random but for one channel that draws a ball around each "
            "click: times mean something, masks do not.",
            soft_wrap=True,
            highlight=False,
        )
        for side in (OURS, SAME_NETWORK, UPSTREAM):
            devices = sorted({session.device for session in figures.sessions if session.side == side})
            counts = sorted({str(len(session.later_s)) for session in figures.sessions if session.side == side})
            if devices:
                text = f"{side}: {', '.join(counts)} later clicks, computed by {'; '.join(devices)}"
                console.print(text, highlight=False, soft_wrap=True)
    if figures.info is not None:
        info = figures.info
        console.print(
            f"/info/ while {info.clicks} clicks on {info.study} ran ({info.clicks_took_s:.2f} s): "
            f"median {statistics.median(info.seconds):.4f} s, at most {max(info.seconds):.4f} s, "
            f"{len(info.seconds)} times",
            highlight=False,
        )
    if figures.crowds:
        console.print(_crowds_table(figures))
    for note in figures.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    for what, why in figures.missing.items():
        console.print(f"Not measured: {what}: {why}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(_goals_table(figures))


def print_machine(facts: dict[str, str], console: Console) -> None:
    """Where this is measured, and whether it can be trusted."""
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), highlight=False, soft_wrap=True)
    if float(facts["load"]) > BUSY_LOAD * int(facts["cores"]):
        console.print("The machine is busy with other work: take no figure for what it can do.", style="yellow")


def machine() -> dict[str, str]:
    """What the figures depend on, before anything is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / GB:.0f} GB",
        "load": f"{os.getloadavg()[0]:.2f}",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "unset"),
        "Python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        **{name: value for name, value in sorted(os.environ.items()) if name.startswith("DEEPGROW3D_")},
    }


def write_json(figures: Figures, facts: dict[str, str], path: Path) -> None:
    """Every single figure."""
    content = {
        "machine": facts,
        **dataclasses.asdict(figures),
        "goals": [{**dataclasses.asdict(goal), "met": goal.met} for goal in goals(figures)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _sessions_table(figures: Figures) -> Table:
    numbers = ("first", "p50", "p95", "undo", "kB", "RSS GB", "x ours")
    table = _table("one annotator, seconds", ("volume", "server"), numbers)
    for study in NAMES:
        base = figures.session(OURS, study)
        for side in (OURS, SAME_NETWORK, UPSTREAM):
            session = figures.session(side, study)
            if session is None:
                continue
            p50, p95 = session.later_percentile_s(50), session.later_percentile_s(95)
            table.add_row(
                study,
                side,
                *(f"{seconds:.2f}" for seconds in (session.first_s, p50, p95, session.undo_s)),
                f"{statistics.median(session.later_bytes) / 1000:,.0f}",
                f"{session.peak_bytes / GB:.2f}",
                "" if base is None else f"{p50 / base.later_percentile_s(50):.1f}",
            )
        table.add_section()
    return table


def _crowds_table(figures: Figures) -> Table:
    numbers = ("annotators", "clicks", "p50", "p95", "p95 / p50", "clicks/s", "429", "errors", "RSS GB")
    table = _table("annotators at once, each on a copy of ct-trunk, seconds a click", (), numbers)
    for crowd in figures.crowds:
        if not crowd.seconds:
            table.add_row(str(crowd.annotators), "0", *[""] * 5, str(len(crowd.errors)), "")
            continue
        p50, p95 = crowd.percentile_s(50), crowd.percentile_s(95)
        table.add_row(
            str(crowd.annotators),
            str(len(crowd.seconds)),
            f"{p50:.2f}",
            f"{p95:.2f}",
            f"{p95 / p50:.2f}",
            f"{len(crowd.seconds) / crowd.took_s:.2f}",
            str(crowd.busy),
            str(len(crowd.errors)),
            f"{crowd.peak_bytes / GB:.2f}",
        )
    return table


def _goals_table(figures: Figures) -> Table:
    table = _table("goals", ("goal",), ("bound", "measured", "met"))
    for goal in goals(figures):
        bound = f"{'>=' if goal.is_least else '<='} {goal.bound:g} {goal.unit}"
        measured = "-" if goal.measured is None else f"{goal.measured:.3g} {goal.unit}"
        met = {None: "-", True: "[green]yes[/green]", False: "[red]no[/red]"}[goal.met]
        table.add_row(goal.what, bound, measured, met)
    return table


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    """With these columns, and little between them: it fits into 80 characters."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def _of(session: Session | None, figure: Callable[[Session], float]) -> float | None:
    return None if session is None else figure(session)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
