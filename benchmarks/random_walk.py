"""What the two walker maps of a click take: ours, and SciPy's conjugate gradients on the same equations.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.random_walk

Patches of the sample CT with random clicks, walks at half resolution as the network is given them. The two sides take
turns; both have Jacobi's preconditioner and the same tolerance. Threads share SciPy's scalar products, which gains
nothing, and then wait for the next one at full speed, on the cores that ours needs: hence the variable.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from deepgrow3d_app.click.random_walk import LEAST_CONDUCTANCE, conductances_of, walker_seeds
from deepgrow3d_app.click.resolution import at_half_resolution
from deepgrow3d_app.click.walk_equations import foreground_probability
from deepgrow3d_app.evaluation.baselines import random_walker as baseline
from deepgrow3d_app.evaluation.baselines.neighbours import neighbour_pairs
from deepgrow3d_app.evaluation.baselines.region import BACKGROUND, FOREGROUND, UNKNOWN
from deepgrow3d_app.model.allocator import keep_freed_memory
from deepgrow3d_app.model.intensity import IntensityWindow
from deepgrow3d_app.training.plan import DEFAULT_PLAN
from deepgrow3d_app.volume.files import read_volume

SAMPLE = Path(__file__).parents[1] / "sample-data" / "studies" / "ct-trunk.nii.gz"
ROUNDS = 15
CLICKS = 3
"""Of either kind."""


def patch_of_sample() -> Tensor:
    """float32 (i, j, k) at half resolution: the middle of the sample, in the network's intensities."""
    volume = read_volume(SAMPLE)
    spec = DEFAULT_PLAN.spec
    window = IntensityWindow.of(volume, spec.window_hu, spec.compress_tails)
    box = tuple(
        slice((extent - wanted) // 2, (extent - wanted) // 2 + wanted)
        for extent, wanted in zip(volume.shape, spec.patch_shape, strict=True)
    )
    return at_half_resolution(window.normalise(torch.from_numpy(np.asarray(volume.array[box], dtype=np.float32))))


def main() -> None:
    """Print medians and their ratio."""
    console = Console()
    keep_freed_memory()  # as the server does
    baseline.TOLERANCE = 1e-3
    image = patch_of_sample()
    sigmas = DEFAULT_PLAN.spec.walker_sigmas
    conductances = [conductances_of(image, sigma) for sigma in sigmas]
    ci, cj, ck = (torch.stack(along) for along in zip(*conductances, strict=True))
    pairs, differences = neighbour_pairs(image.numpy())
    of_pairs = [np.exp(-0.5 * (differences / sigma) ** 2) + LEAST_CONDUCTANCE for sigma in sigmas]
    generator = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"SciPy": [], "ours": []}
    farthest = 0.0
    for turn in track(range(ROUNDS + 1), "both in turns", console=console, transient=True):
        points = [tuple(generator.uniform(4, np.array(image.shape) - 4)) for _ in range(2 * CLICKS)]
        seeds, values = walker_seeds(image.shape, points[:CLICKS], points[CLICKS:], image.device)
        kinds = np.where(seeds, np.where(values > 0, FOREGROUND, BACKGROUND), UNKNOWN).astype(np.int8)
        start = time.perf_counter()
        theirs = np.stack([baseline.foreground_probability(pairs, each, kinds) for each in of_pairs])
        middle = time.perf_counter()
        ours = foreground_probability((ci, cj, ck), seeds.expand(len(sigmas), *seeds.shape), values)
        end = time.perf_counter()
        farthest = max(farthest, float(np.abs(ours.numpy() - theirs).max()))
        if turn > 0:
            seconds["SciPy"].append(middle - start)
            seconds["ours"].append(end - middle)
    theirs_s, ours_s = (statistics.median(seconds[side]) for side in ("SciPy", "ours"))
    shape = " x ".join(map(str, image.shape))
    console.print(
        f"{len(sigmas)} walks over {shape} voxels, {torch.get_num_threads()} thread(s), {ROUNDS} sets of clicks, "
        f"load {os.getloadavg()[0]:.2f}; probabilities differ by {farthest:.4f} at most",
        soft_wrap=True,
    )
    table = Table("SciPy, s", "ours, s", "SciPy / ours")
    table.add_row(f"{theirs_s:.3f}", f"{ours_s:.3f}", f"{theirs_s / ours_s:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
