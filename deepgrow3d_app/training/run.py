"""One training run as the command line starts it: load, train, show progress."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from deepgrow3d_app import __version__
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine import best_device
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.cases import CasePool, describe_groups, load_group
from deepgrow3d_app.training.patches import PatchSource
from deepgrow3d_app.training.trainer import Progress, Recipe, Trainer


def run_training(
    folders: Sequence[Path],
    output: Path,
    recipe: Recipe,
    held_out: int,
    spec: ModelSpec,
    start_from: Path | None,
    command: str,
    console: Console,
) -> None:
    """Train on the cases of ``folders`` and leave a checkpoint at ``output``.

    Args:
        folders: see :func:`~deepgrow3d_app.training.cases.load_group`.
        output: checkpoint; its log is written beside it.
        recipe: how.
        held_out: cases of a many-case folder that are not trained on.
        spec: what is trained, where no checkpoint says it.
        start_from: checkpoint to go on from.
        command: what the checkpoint says made it.
        console: where progress is shown.

    Raises:
        TrainingError: nothing to train on, or the loss stays non-finite.
        CheckpointError: ``start_from`` is missing or damaged.
    """
    origin_weights = Checkpoint.load(start_from) if start_from is not None else None
    spec = origin_weights.spec if origin_weights is not None else spec
    with console.status("loading cases"):
        groups = [load_group(folder, spec, held_out) for folder in folders]
    patches = PatchSource(CasePool(groups), spec, recipe.synthetic_share, np.random.default_rng(recipe.seed + 1))
    trainer = Trainer(
        spec, recipe, patches, best_device(), origin_weights.weights if origin_weights is not None else None
    )
    parent = {"started_from": json.dumps(origin_weights.origin)} if origin_weights is not None else {}
    origin = {**parent, "command": command, "data": describe_groups(folders, groups), "version": __version__}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with ProgressBar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=recipe.minutes * 60)

        def show(progress: Progress) -> None:
            dice = " ".join(f"{clicks}: {value:.2f}" for clicks, value in progress.dice.items())
            bar.update(
                task,
                completed=min(progress.elapsed_s, progress.budget_s),
                description=f"step {progress.step}  loss {progress.loss:.3f}  Dice at clicks {dice}",
            )

        trainer.train(output, origin, show)
    console.print(f"{output}: {trainer.step} steps", soft_wrap=True)
