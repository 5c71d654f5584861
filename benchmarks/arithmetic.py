"""What the shipped network takes in float32 and in bfloat16 on this machine, and which of them is chosen.

    python -m benchmarks.arithmetic

PyTorch and OpenVINO, each with both kinds of arithmetic, take turns on the same patch.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deepgrow3d_app.model import engine, openvino_engine
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine import Engine, TorchEngine
from deepgrow3d_app.model.engine_choice import trial_inputs
from deepgrow3d_app.model.openvino_engine import OpenVinoEngine
from deepgrow3d_app.model.precision import ADVANTAGE, convolution_seconds, cpu_has_bfloat16

CHECKPOINT = Path(__file__).parents[1] / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors"
ROUNDS = 9
CPU = torch.device("cpu")


def engines(checkpoint: Checkpoint, converted: Path) -> dict[tuple[str, bool], Engine]:
    """By library and whether in bfloat16: each made while that is what the trial says."""
    found: dict[tuple[str, bool], Engine] = {}
    makers: dict[str, Callable[[], Engine]] = {
        "PyTorch": lambda: TorchEngine(checkpoint.network(), CPU),
        "OpenVINO": lambda: OpenVinoEngine.of(checkpoint, converted),
    }
    for in_bfloat16 in (False, True):
        with (
            mock.patch.object(engine, "reduced_precision", return_value=torch.bfloat16 if in_bfloat16 else None),
            mock.patch.object(openvino_engine, "cpu_prefers_bfloat16", return_value=in_bfloat16),
        ):
            for library, make in makers.items():
                found[library, in_bfloat16] = make()
    return found


def main() -> None:
    """Print seconds a patch, and ratios."""
    console = Console()
    if not cpu_has_bfloat16():
        console.print("This CPU has no instructions for bfloat16: float32 is used.")
        return
    checkpoint = Checkpoint.load(CHECKPOINT)
    inputs = trial_inputs(checkpoint.spec)
    with tempfile.TemporaryDirectory() as folder:
        made = engines(checkpoint, Path(folder))
    seconds: dict[tuple[str, bool], list[float]] = {key: [] for key in made}
    for _ in track(range(ROUNDS + 1), "both in turns", console=console, transient=True):
        for key, each in made.items():
            start = time.perf_counter()
            each(inputs)
            seconds[key].append(time.perf_counter() - start)
    table = Table("library", "float32, s", "bfloat16, s", "bfloat16 / float32")
    for library in ("PyTorch", "OpenVINO"):
        single, half = (statistics.median(seconds[library, in_bfloat16][1:]) for in_bfloat16 in (False, True))
        table.add_row(library, f"{single:.3f}", f"{half:.3f}", f"{half / single:.2f}")
    shape = " x ".join(map(str, checkpoint.spec.patch_shape))
    console.print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.2f}; a patch of {shape} voxels")
    console.print(table)
    single, half = convolution_seconds()
    chosen = "bfloat16" if half < ADVANTAGE * single else "float32"
    console.print(f"The trial of one convolution, in each process: {half / single:.2f}, so {chosen} is used.")


if __name__ == "__main__":
    main()
