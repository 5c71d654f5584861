"""What judging costs: click simulation and scores beside the predictions that they judge.

    python benchmarks/evaluation_overhead.py

Fifteen clicks by the protocol on a large and on a small structure of a generated CT of 512 x 512 x 120 voxels.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.metrics import Reference
from deepgrow3d_app.evaluation.network_method import NetworkMethod
from deepgrow3d_app.evaluation.protocol import Region, perfect_user
from deepgrow3d_app.volume.geometry import Index
from deepgrow3d_app.volume.volume import Mask, Volume

SHAPE = (512, 512, 120)
SPACING_MM = (0.8, 0.8, 2.5)
CHECKPOINT = Path(__file__).parents[1] / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors"
ORGANS = {  # middle, half axes in voxels, HU
    "large": ((200, 250, 60), (120, 105, 30), 80),
    "small": ((330, 300, 70), (22, 18, 8), 90),
    "neighbour": ((320, 250, 55), (60, 90, 28), 60),
    "twin": ((200, 390, 60), (70, 40, 30), 85),
}


def generated_ct() -> tuple[Volume, dict[str, Region]]:
    """A body of fat with a few organs that touch and look alike, so that answers to clicks are imperfect."""
    generator = np.random.default_rng(0)
    i, j, k = np.ogrid[tuple(slice(0, extent) for extent in SHAPE)]
    hu = np.full(SHAPE, -1000.0, dtype=np.float32, order="F")
    hu[((i - 256) / 230) ** 2 + ((j - 256) / 180) ** 2 < 1 + 0 * k] = -80
    regions: dict[str, Region] = {}
    for name, ((a, b, c), (ra, rb, rc), value) in ORGANS.items():
        wave = 0.15 * np.sin(i / 13) * np.cos(j / 11) * np.sin(k / 5)
        region = np.asfortranarray(((i - a) / ra) ** 2 + ((j - b) / rb) ** 2 + ((k - c) / rc) ** 2 + wave < 1)
        for other in regions.values():
            region &= ~other
        regions[name] = region
        hu[region] = value
    hu += generator.standard_normal(SHAPE, dtype=np.float32) * 20
    affine = np.diag((-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0))
    return Volume(np.asfortranarray(hu.astype(np.int16)), affine), regions


def measure(volume: Volume, truth: Region, click_count: int) -> tuple[float, float, float, float]:
    """Seconds spent on predictions, click simulation and scores, and the Dice in the end."""
    method = NetworkMethod(CHECKPOINT)
    method.segment(volume, [Click((256, 256, 60))], None)  # the first pass of a process is slower
    spent = {"predict": 0.0, "click": 0.0, "score": 0.0}
    started = time.perf_counter()
    reference = Reference(truth, volume.spacing_mm)
    user = perfect_user(volume)
    spent["score"] += time.perf_counter() - started
    clicks: list[Click] = []
    taken: list[Index] = []
    mask: Mask | None = None
    dice = 0.0
    for _ in range(click_count):
        started = time.perf_counter()
        click = user(reference.truth, mask, taken)
        clicked = time.perf_counter()
        spent["click"] += clicked - started
        if click is None:
            break
        clicks.append(click)
        taken.append(click.index)
        mask = method.segment(volume, clicks, mask)
        predicted = time.perf_counter()
        dice = reference.score(mask).dice
        spent["predict"] += predicted - clicked
        spent["score"] += time.perf_counter() - predicted
    return spent["predict"], spent["click"], spent["score"], dice


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=15, help="on each structure (default 15)")
    click_count = parser.parse_args(arguments).clicks
    volume, regions = generated_ct()
    table = Table(title=f"{click_count} clicks on {' x '.join(map(str, SHAPE))} voxels, seconds in all")
    for name in ("structure", "voxels", "prediction", "click simulation", "scores", "overhead / prediction", "Dice"):
        table.add_column(name, justify="left" if name == "structure" else "right")
    for name in ("large", "small"):
        predict_s, click_s, score_s, dice = measure(volume, regions[name], click_count)
        share = (click_s + score_s) / predict_s
        cells = (f"{predict_s:.2f}", f"{click_s:.2f}", f"{score_s:.2f}", f"{share:.0%}", f"{dice:.2f}")
        table.add_row(name, str(int(regions[name].sum())), *cells)
    Console().print(table)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Console().print(f"peak memory of the process {peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
