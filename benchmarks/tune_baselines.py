"""How the parameters of the baselines were chosen: each varied around its value, on cases that no score is quoted of.

    python benchmarks/tune_baselines.py CASE_FOLDER ...

Each structure is clicked by the protocol's perfect user, after the method's own answers. Printed are the
mean Dice over all structures after 1, 3, 5, 10, 15 clicks, its mean over all clicks, and seconds a click.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.labelled_case import LabelledCase
from deepgrow3d_app.evaluation.baselines.graph_cut import GraphCut
from deepgrow3d_app.evaluation.baselines.random_walker import RandomWalker
from deepgrow3d_app.evaluation.metrics import Reference
from deepgrow3d_app.evaluation.protocol import annotate, perfect_user
from deepgrow3d_app.evaluation.results import Round
from deepgrow3d_app.evaluation.summary import REPORTED_CLICKS

VALIDATION_CASE = "ct-trunk"
MIN_VOLUME_ML = 20.0

Baseline = GraphCut | RandomWalker


def graph_cuts() -> dict[str, Baseline]:
    base = GraphCut()
    return {
        "graph cut": base,
        "boundary_weight 0.5": replace(base, boundary_weight=0.5),
        "boundary_weight 2": replace(base, boundary_weight=2.0),
        "boundary_sigma 0.02": replace(base, boundary_sigma=0.02),
        "boundary_sigma 0.08": replace(base, boundary_sigma=0.08),
        "intensity_weight 0": replace(base, intensity_weight=0.0),
        "intensity_weight 1": replace(base, intensity_weight=1.0),
        "extent_mm 180": replace(base, extent_mm=180.0),
        "extent_mm 300": replace(base, extent_mm=300.0),
        "voxel_count 40^3": replace(base, voxel_count=40**3),
        "voxel_count 64^3": replace(base, voxel_count=64**3),
    }


def random_walkers() -> dict[str, Baseline]:
    base = RandomWalker()
    return {
        "random walker": base,
        "sigma 0.01": replace(base, sigma=0.01),
        "sigma 0.02": replace(base, sigma=0.02),
        "sigma 0.03": replace(base, sigma=0.03),
        "sigma 0.06": replace(base, sigma=0.06),
        "extent_mm 180": replace(base, extent_mm=180.0),
        "extent_mm 300": replace(base, extent_mm=300.0),
        "voxel_count 40^3": replace(base, voxel_count=40**3),
        "voxel_count 64^3": replace(base, voxel_count=64**3),
    }


def annotated(case: LabelledCase, structure: str, method: Baseline, click_count: int) -> list[Round]:
    torch.set_num_threads(1)
    reference = Reference(case.truth(structure), case.volume.spacing_mm)
    rounds = annotate(method, case.volume, reference, perfect_user(case.volume), click_count)
    return [round_ for round_, _ in rounds]


def row(sessions: Sequence[list[Round]], reported: Iterable[int]) -> list[str]:
    curve = np.mean([[r.dice for r in rounds] for rounds in sessions], axis=0)
    seconds = [r.seconds for rounds in sessions for r in rounds if r.index is not None]
    cells = [f"{curve[n - 1]:.3f}" for n in reported] + [f"{curve.mean():.3f}"]
    return [*cells, f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path, help="case folders")
    parser.add_argument("--method", choices=("graph_cut", "random_walker"), action="append", help="default: both")
    parser.add_argument("--variant", action="append", help="only this variant (several allowed)")
    parser.add_argument("--clicks", type=int, default=max(REPORTED_CLICKS), help="clicks on each structure")
    parser.add_argument("--min-ml", type=float, default=MIN_VOLUME_ML, help="leave out smaller structures")
    parser.add_argument("--jobs", type=int, default=1, help="processes; use 1 for seconds that mean something")
    parser.add_argument("--structures", action="store_true", help="a row for every structure as well")
    options = parser.parse_args()
    cases = [source.load() for folder in options.cases for source in find_cases(folder)]
    if any(VALIDATION_CASE in str(folder.resolve()) for folder in options.cases):
        parser.error(f"{VALIDATION_CASE} is the validation case: a baseline that was tuned on it proves nothing.")
    trials = [
        (case, structure)
        for case in cases
        for structure, value in case.structures.items()
        if (case.labels == value).sum() * np.prod(case.volume.spacing_mm) / 1000 >= options.min_ml
    ]
    reported = [n for n in REPORTED_CLICKS if n <= options.clicks]
    console = Console(width=110)
    variants = {"graph_cut": graph_cuts, "random_walker": random_walkers}
    with ProcessPoolExecutor(options.jobs) as pool:
        for method in options.method or variants:
            table = Table(title=f"{method}: mean Dice over {len(trials)} structures of {len(cases)} cases")
            for column in ("", *(f"Dice@{n}" for n in reported), f"mean 1-{options.clicks}", "median s", "max s"):
                table.add_column(column, justify="right" if column else "left")
            for name, baseline in variants[method]().items():
                if options.variant and name not in options.variant:
                    continue
                run = partial(annotated, method=baseline, click_count=options.clicks)
                sessions = list(pool.map(run, *zip(*trials, strict=True)))
                table.add_row(name, *row(sessions, reported), style="bold" if baseline == type(baseline)() else None)
                if options.structures:
                    for (case, structure), session in zip(trials, sessions, strict=True):
                        table.add_row(f"  {case.name} {structure}", *row([session], reported))
            console.print(table)


if __name__ == "__main__":
    main()
