"""What a training step costs, part by part, and what MONAI's DeepGrow transforms take for the same clicks.

    python benchmarks/training_step.py

The same batch of generated patches, with masks as a network in training gives them, goes through both. MONAI's side
is what its own trainer runs for each click (``monailabel``, sample app ``radiology``, ``lib/trainers/deepgrow.py``):
FindDiscrepancyRegionsd and AddRandomGuidanced choose it, AddGuidanceSignald draws it. For the first click of a patch
that is AddInitialSeedPointd, which looks at one slice only, where ours looks at the whole patch. The two sides take
turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.apps.deepgrow.transforms import (
    AddGuidanceSignald,
    AddInitialSeedPointd,
    AddRandomGuidanced,
    FindAllValidSlicesd,
    FindDiscrepancyRegionsd,
)
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from torch import Tensor, nn

from deepgrow3d_app.cases.labelled_case import LabelledCase
from deepgrow3d_app.cases.prepared_case import write_prepared_case
from deepgrow3d_app.cases.prepared_manifest import PreparedEntry, PreparedManifest
from deepgrow3d_app.click.batched import PolicyMix, next_clicks
from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.guidance import guidance_maps
from deepgrow3d_app.evaluation.protocol import Region
from deepgrow3d_app.model.allocator import keep_freed_memory
from deepgrow3d_app.training.cases import CasePool, load_group
from deepgrow3d_app.training.loss import dice_cross_entropy
from deepgrow3d_app.training.patches import PatchSource
from deepgrow3d_app.training.plan import DEFAULT_PLAN
from deepgrow3d_app.training.ranks import Ranks
from deepgrow3d_app.training.trainer import Trainer
from deepgrow3d_app.volume.geometry import Index
from deepgrow3d_app.volume.volume import Volume

BATCH = 2
EXTENTS = (DEFAULT_PLAN.spec.patch_shape[0], 128)
CASE_SHAPE = (200, 180, 160)
MISS_VOXELS = 1.5
CPU = torch.device("cpu")

Part = Callable[[], object]


def structure(extent: int, seed: int) -> Region:
    """An organ: a bent ellipsoid about a third of the patch wide."""
    generator = np.random.default_rng(seed)
    i, j, k = (axis / extent - 0.5 for axis in np.ogrid[:extent, :extent, :extent])
    a, b, c = generator.uniform(0.14, 0.24, 3)
    wave = 0.2 * np.sin(14 * i) * np.cos(11 * j) * np.sin(9 * k)
    return np.asarray((i / a) ** 2 + (j / b) ** 2 + (k / c) ** 2 + wave < 1)


def imperfect(truth: Region, seed: int) -> Region:
    """A mask as a network gives it: shifted and eroded, with a piece of a neighbour."""
    extent = truth.shape[0]
    mask = np.roll(truth, (extent // 30, -extent // 40, extent // 50), (0, 1, 2))
    mask = np.asarray(ndimage.binary_erosion(mask, iterations=max(1, extent // 64)))
    middle = np.argwhere(truth)[np.random.default_rng(seed).integers(truth.sum())] + extent // 6
    i, j, k = (axis - place for axis, place in zip(np.ogrid[:extent, :extent, :extent], middle, strict=True))
    return np.asarray(mask | (i**2 + j**2 + k**2 < (extent / 14) ** 2))


class Ours:
    """Clicks as ``deepgrow3d train`` makes and draws them, for a whole batch."""

    def __init__(self, truths: Tensor, masks: Tensor) -> None:
        self.truths, self.masks = truths, masks
        self.generators = [np.random.default_rng(place) for place in range(BATCH)]
        self.policies = [PolicyMix().draw(generator) for generator in self.generators]
        self.clicks: list[Click | None] = []

    def simulate(self) -> None:
        self.clicks = self._next(self.masks)

    def simulate_first(self) -> None:
        self._next(torch.zeros_like(self.masks))

    def encode(self) -> None:
        spec = DEFAULT_PLAN.spec
        shape = (self.truths.shape[1], self.truths.shape[2], self.truths.shape[3])
        for click in filter(None, self.clicks):
            foreground, background = ([click.index], []) if click.is_positive else ([], [click.index])
            guidance_maps(foreground, background, shape, spec.spacing_mm, spec.sigma_mm)

    def _next(self, masks: Tensor) -> list[Click | None]:
        clicked: list[list[Index]] = [[] for _ in self.policies]
        misses = [MISS_VOXELS] * BATCH
        spacing_mm = DEFAULT_PLAN.spec.spacing_mm
        return next_clicks(self.truths, masks, clicked, self.policies, misses, self.generators, spacing_mm)


class Monai:
    """The transforms of MONAI's trainer, sample by sample as its ``Interaction`` applies them."""

    def __init__(self, truths: Tensor, masks: Tensor, images: Tensor) -> None:
        self.samples: list[dict[str, Any]] = [
            {
                "image": image.numpy()[None],
                "label": truth.numpy()[None].astype(np.float32),
                "pred": mask.numpy()[None].astype(np.float32),
                "guidance": "[[], []]",
                "probability": 1.0,
            }
            for image, truth, mask in zip(images, truths, masks, strict=True)
        ]
        self.find, self.signal, self.slices = FindDiscrepancyRegionsd(), AddGuidanceSignald(), FindAllValidSlicesd()
        self.add, self.seed = AddRandomGuidanced(), AddInitialSeedPointd()
        for place, transform in enumerate((self.add, self.seed)):
            transform.set_random_state(place)
        self.clicked = self.samples

    def simulate(self) -> None:
        self.clicked = [self.add(self.find(sample)) for sample in self.samples]

    def simulate_first(self) -> None:
        for sample in self.samples:
            self.seed(self.slices(sample))

    def encode(self) -> None:
        for sample in self.clicked:
            self.signal(sample)


def median_ms(parts: dict[str, Part], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """The parts one after the other, again and again, after a warm-up."""
    spent: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, part in parts.items():
            started = clock()
            part()
            if turn > 0:
                spent[name].append(1000 * (clock() - started))
    return {name: statistics.median(values) for name, values in spent.items()}


def compare_clicks(rounds: int, console: Console) -> None:
    """Click simulation and encoding, MONAI's beside ours."""
    # Time of the processor, which other programs on the machine do not change; on one thread it is the clock's.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    table = Table(title=f"clicks on a batch of {BATCH} patches, ms on one core, {rounds} rounds")
    for name in ("patch", "part", "MONAI", "ours", "MONAI / ours"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for extent in EXTENTS:
        truths = np.stack([structure(extent, seed) for seed in range(BATCH)])
        masks = np.stack([imperfect(truth, seed) for seed, truth in enumerate(truths)])
        images = torch.from_numpy(np.where(truths, 0.4, -0.2).astype(np.float32))
        ours = Ours(torch.from_numpy(truths), torch.from_numpy(masks))
        monai = Monai(ours.truths, ours.masks, images)
        kinds = {"click simulation": "simulate", "its encoding as maps": "encode", "first click": "simulate_first"}
        rows: dict[str, tuple[float, float]] = {}
        for kind, method in kinds.items():
            sides: dict[str, Part] = {"MONAI": getattr(monai, method), "ours": getattr(ours, method)}
            spent = median_ms(sides, rounds, time.process_time)
            rows[kind] = (spent["MONAI"], spent["ours"])
        simulation, encoding = rows["click simulation"], rows["its encoding as maps"]
        rows["simulation and encoding"] = (simulation[0] + encoding[0], simulation[1] + encoding[1])
        for kind in ("first click", "click simulation", "its encoding as maps", "simulation and encoding"):
            theirs, mine = rows[kind]
            table.add_row(f"{extent}^3", kind, f"{theirs:.1f}", f"{mine:.1f}", f"{theirs / mine:.1f}")
        table.add_section()
    torch.set_num_threads(threads)
    console.print(table)


def prepared_cases(folder: Path) -> None:
    """A generated CT with four organs, as ``deepgrow3d prepare`` leaves it."""
    labels = np.zeros(CASE_SHAPE, np.uint8)
    for value in range(1, 5):
        organ = structure(80, value)
        corner = np.random.default_rng(value).integers(0, np.array(CASE_SHAPE) - 80)
        box = tuple(slice(int(low), int(low) + 80) for low in corner)
        labels[box][organ] = value
    noise = np.random.default_rng(0).normal(0, 20, CASE_SHAPE)
    volume = Volume((np.where(labels > 0, 60, -100) + noise).astype(np.int16), np.diag((1.5, 1.5, 1.5, 1)))
    names = {f"organ {value}": value for value in range(1, 5)}
    (folder / "case").mkdir(parents=True)
    write_prepared_case(LabelledCase("case", volume, labels, names), folder / "case", "", ())
    PreparedManifest(None, names, (PreparedEntry("case", "case", "training", "case"),), names).write(folder)


class Step:
    """The parts of one training step of the default plan, each of them as the trainer runs it."""

    def __init__(self, folder: Path) -> None:
        prepared_cases(folder)
        group = load_group(folder, DEFAULT_PLAN.spec, 0, folder / "cache")
        self.patches = PatchSource(CasePool([group]), DEFAULT_PLAN)
        # One batch of annotators: the step that is timed corrects what it answered before.
        plan = dataclasses.replace(DEFAULT_PLAN, recipe=dataclasses.replace(DEFAULT_PLAN.recipe, batches_in_turn=1))
        self.trainer = Trainer(plan, self.patches, Ranks(0, 1, CPU))
        self.trainer.train_step()  # so that there are masks with errors
        self.drawn = 0
        self.inputs = self.logits = torch.zeros(())

    def patch(self) -> None:
        """One for each annotator: as often as he leaves one, after 8 clicks in the mean."""
        self.drawn += 1
        for slot in range(BATCH):
            self.patches.draw(slot, self.drawn)

    def click(self) -> None:
        self.trainer.batch.click()

    def feed(self) -> None:
        precision = torch.bfloat16 if self.trainer.in_bfloat16 else torch.float32
        self.inputs = self.trainer.batch.inputs().to(precision, memory_format=torch.channels_last_3d)

    def forward(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.trainer.in_bfloat16):
            self.logits = self.trainer.parallel(self.inputs)[:, 0]

    def learn(self) -> None:
        trainer = self.trainer
        loss = dice_cross_entropy(self.logits, trainer.batch.truths).mean()
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trainer.network.parameters(), DEFAULT_PLAN.recipe.max_gradient_norm)
        trainer.optimizer.step()
        trainer.average.update(trainer.network)

    def answer(self) -> None:
        self.trainer.batch.answer(self.logits.detach() > 0)


def time_step(rounds: int, console: Console) -> None:
    """One step of the default plan, as a whole and in parts."""
    with tempfile.TemporaryDirectory() as folder:
        step = Step(Path(folder))
        parts: dict[str, Part] = {
            "a whole step": step.trainer.train_step,
            "new patches for all": step.patch,
            "click simulation": step.click,
            "guidance and other inputs": step.feed,
            "forward": step.forward,
            "loss, backward, optimizer, average": step.learn,
            "showing the masks to annotators": step.answer,
        }
        spent = median_ms(parts, rounds, time.perf_counter)
    extent = DEFAULT_PLAN.spec.patch_shape[0]
    threads = torch.get_num_threads()
    table = Table(
        title=f"a step of the default plan, {BATCH} patches of {extent}^3, {threads} thread(s), {rounds} rounds"
    )
    for name in ("part", "median ms", "of a step"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for name, value in spent.items():
        table.add_row(name, f"{value:.1f}", f"{value / spent['a whole step']:.1%}")
    console.print(table)
    console.print(
        "A step draws a new patch only for those annotators who leave theirs: one in eight. The network is untrained: "
        "its masks are wrong everywhere, so that clicks take longer here than above.",
        soft_wrap=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="at least 5 (default 15)")
    rounds = max(5, parser.parse_args(arguments).rounds)
    console = Console()
    keep_freed_memory()  # as `deepgrow3d train` does
    compare_clicks(rounds, console)
    time_step(min(rounds, 7), console)


if __name__ == "__main__":
    main()
