"""What the network's part of a training step takes on a CPU, before and with what is done for it, and the memory.

    python -m benchmarks.network_step

Forward, loss and backward of the shipped network on a batch of noise, in four processes of equal threads that take
turns: with PyTorch's instance norm and inputs in float32, or with ours and inputs in the network's precision; and with
freed memory given back to the system, as the C library does by itself, or kept for the next step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from deepgrow3d_app.model.allocator import keep_freed_memory
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.instance_norm import InstanceNorm
from deepgrow3d_app.model.network import on_device
from deepgrow3d_app.model.precision import cpu_prefers_bfloat16
from deepgrow3d_app.training.loss import dice_cross_entropy

CHECKPOINT = Path(__file__).parents[1] / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors"
WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Way:
    """How a process computes its steps."""

    keeps_layout: bool
    keeps_memory: bool

    @property
    def name(self) -> str:
        return "ours" if self.keeps_layout else "PyTorch's"


WAYS = [Way(keeps_layout, keeps_memory) for keeps_layout in (False, True) for keeps_memory in (False, True)]


def prepare(way: Way, batch: int, in_bfloat16: bool) -> Callable[[], None]:
    """A step, to be called again and again."""
    if not way.keeps_layout:
        InstanceNorm.forward = nn.InstanceNorm3d.forward  # type: ignore[method-assign]
    if way.keeps_memory:
        keep_freed_memory()
    checkpoint = Checkpoint.load(CHECKPOINT)
    network = on_device(checkpoint.network(), torch.device("cpu")).train().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    shape = checkpoint.spec.patch_shape
    inputs = torch.randn(batch, checkpoint.spec.input_channels, *shape, generator=generator)
    inputs = inputs.to(memory_format=torch.channels_last_3d)
    truths = torch.rand(batch, *shape, generator=generator) > 0.8

    def step() -> None:
        fed = inputs.to(torch.bfloat16) if way.keeps_layout and in_bfloat16 else inputs
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
            logits = network(fed)[:, 0]
        dice_cross_entropy(logits, truths).mean().backward()
        network.zero_grad(set_to_none=True)

    return step


def work(way: Way, batch: int, threads: int, in_bfloat16: bool, connection: Connection) -> None:
    """A process: a step whenever it is told to, answered with its seconds; in the end, its peak memory in MB."""
    torch.set_num_threads(threads)
    step = prepare(way, batch, in_bfloat16)
    while connection.recv():
        start = time.perf_counter()
        step()
        connection.send(time.perf_counter() - start)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(
    rounds: int, batch: int, threads: int, in_bfloat16: bool, console: Console
) -> dict[Way, tuple[list[float], float]]:
    """Seconds of each step, and the peak memory in MB, by way."""
    context = multiprocessing.get_context("spawn")
    connections: dict[Way, Connection] = {}
    for way in WAYS:
        connections[way], theirs = context.Pipe()
        context.Process(target=work, args=(way, batch, threads, in_bfloat16, theirs), daemon=True).start()
    seconds: dict[Way, list[float]] = {way: [] for way in WAYS}
    for turn in track(range(WARM_UP + rounds), "in turns", console=console, transient=True):
        for way, connection in connections.items():
            connection.send(True)
            spent = connection.recv()
            if turn >= WARM_UP:
                seconds[way].append(spent)
    found = {}
    for way, connection in connections.items():
        connection.send(False)
        found[way] = (seconds[way], float(connection.recv()))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print medians, ratios and peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="steps of each process (default 15)")
    parser.add_argument("--batch", type=int, default=2, help="patches in a step (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="of each process (default 1, as one of several has)")
    options = parser.parse_args(arguments)
    console = Console()
    in_bfloat16 = cpu_prefers_bfloat16()
    found = measure(options.rounds, options.batch, options.threads, in_bfloat16, console)
    before = statistics.median(found[WAYS[0]][0])
    table = Table("norm and inputs", "freed memory", "median s", "of the first", "peak MB")
    for way, (seconds, peak) in found.items():
        median = statistics.median(seconds)
        kept = "kept" if way.keeps_memory else "given back"
        table.add_row(way.name, kept, f"{median:.3f}", f"{median / before:.2f}", f"{peak:.0f}")
    precision = "bfloat16" if in_bfloat16 else "float32"
    console.print(
        f"{options.batch} patches a step in {precision}, {options.threads} thread(s) each, {options.rounds} rounds, "
        f"load {os.getloadavg()[0]:.2f}"
    )
    console.print(table)


if __name__ == "__main__":
    main()
