"""``deepgrow3d train``."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from deepgrow3d_app.cli.app import PlainProgress, app, check_folder, command_line, console

if TYPE_CHECKING:
    from deepgrow3d_app.training.log import Progress
    from deepgrow3d_app.training.plan import TrainingPlan
    from deepgrow3d_app.training.run_folder import RunFolder

DEFAULT = "default"
TELLING_S = 1.0
"""What the first process has to tell why it refuses: once any of them ends, torchrun ends all."""


@app.command()
def train(
    cases: Annotated[
        list[Path],
        typer.Argument(help="Folders of labelled cases, prepared by `deepgrow3d prepare` or in any layout it takes."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder; made where it is missing.")],
    spec: Annotated[
        str,
        typer.Option(
            help="What is trained and how: 'default' (ours), 'seed' (the classic DeepGrow 3D recipe), or a JSON file "
            'like {"spec": {..}, "recipe": {..}}. A run\'s plan.json is one.'
        ),
    ] = DEFAULT,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock budget.", show_default="the plan's: 60")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in gradient steps; such runs can be repeated.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches per step.", show_default="the plan's")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak.", show_default="the plan's")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all randomness.", show_default="the plan's")] = None,
    held_out: Annotated[
        int,
        typer.Option(
            help="Cases at the end of a folder that are kept for validation, if it is not prepared; with them, all "
            "others of their patients.",
            min=0,
        ),
    ] = 40,
    start_from: Annotated[Path | None, typer.Option(help="Start from this checkpoint's weights, and its spec.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that draw patches ahead, for each training process.",
            min=0,
            show_default="0 on a CPU; on a GPU, one for each core but one",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output, exactly.")] = False,
) -> None:
    """Train a network with simulated clicks.

    The run's folder gets model.safetensors (the network so far), best.safetensors (the best validation),
    log.jsonl and tensorboard/ (curves). After a kill at any moment, the same command with --resume goes on from the
    last save.

    On several GPUs or machines: torchrun --nproc-per-node 2 -m deepgrow3d_app train CASES ... The processes share
    each batch, so --batch-size is that of all of them together.
    """
    from deepgrow3d_app.model.allocator import keep_freed_memory
    from deepgrow3d_app.training.plan import Budget
    from deepgrow3d_app.training.ranks import ToldByTheFirst, joined
    from deepgrow3d_app.training.run import RunRequest, run_training
    from deepgrow3d_app.training.run_folder import RunFolder

    check_folder(output)
    keep_freed_memory()
    folder = RunFolder(output)
    changes = {"batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    given = {name: value for name, value in changes.items() if value is not None}
    plan = _plan(spec, given, start_from, folder if resume else None)
    if steps is not None or minutes is not None:
        plan = dataclasses.replace(plan, budget=Budget(steps, minutes))
    request = RunRequest(cases, held_out, start_from, resume, command_line(), workers=workers)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(joined())
        # Not an empty bar either: it would wipe away the first process's.
        bar = ProgressBar(*columns, TimeRemainingColumn(), console=console, disable=not ranks.is_first)
        task = stack.enter_context(bar).add_task("loading cases", total=1.0)

        plain = PlainProgress()

        def show(progress: Progress) -> None:
            plain.tell(f"{progress.done:.0%}  {_described(progress)}")
            bar.update(task, completed=progress.done, description=_described(progress))
            if progress.validation is not None:
                bar.console.print(f"step {progress.step}: validation, Dice at clicks {_listed(progress.validation)}")

        def tell(line: str) -> None:
            if ranks.is_first:
                bar.console.print(line, soft_wrap=True, markup=False, highlight=False)

        try:
            trainer = run_training(request, plan, folder, ranks, show, tell)
        except ToldByTheFirst:
            time.sleep(TELLING_S)
            sys.exit(1)
    if ranks.is_first:
        console.print(f"{folder.model_file}: {trainer.step} steps", soft_wrap=True)


def _plan(spec: str, given: Mapping[str, float], start_from: Path | None, resumed: RunFolder | None) -> TrainingPlan:
    """The plan that the options ask for; where they say nothing, that of the run to be resumed."""
    from deepgrow3d_app.model.checkpoint import Checkpoint
    from deepgrow3d_app.training.plan import read_plan

    if resumed is not None and spec == DEFAULT:
        plan = resumed.plan()
    elif start_from is not None and spec == DEFAULT:
        plan = dataclasses.replace(read_plan(spec), spec=Checkpoint.load(start_from).spec)
    else:
        plan = read_plan(spec)
    return dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, **given))  # type: ignore[arg-type]


def _described(progress: Progress) -> str:
    return f"step {progress.step}  loss {progress.loss:.3f}  Dice at clicks {_listed(progress.dice)}"


def _listed(dice: dict[int, float]) -> str:
    return " ".join(f"{clicks}: {value:.2f}" for clicks, value in dice.items() if clicks <= 5) or "-"
