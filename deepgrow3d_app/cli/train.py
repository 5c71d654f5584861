"""``deepgrow3d train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from deepgrow3d_app.cli.app import app, command_line, console


@app.command()
def train(
    cases: Annotated[
        list[Path],
        typer.Argument(help="Case folders: image.nii.gz and labels.nii.gz, or images/ and labels/ with many cases."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write (.safetensors).")],
    minutes: Annotated[float, typer.Option(help="Wall-clock time to train for.", min=0.01)] = 60.0,
    batch_size: Annotated[int, typer.Option(help="Patches per step.", min=1)] = 2,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.", min=1e-6)] = 1e-3,
    held_out: Annotated[
        int, typer.Option(help="Cases at the end of a many-case folder that are kept for validation.", min=0)
    ] = 40,
    network: Annotated[
        Literal["compact_unet", "basic_unet"],
        typer.Option(help="Ours, or the classic DeepGrow 3D network with its input at 1x1x3 mm."),
    ] = "compact_unet",
    start_from: Annotated[Path | None, typer.Option(help="Go on from this checkpoint's weights and spec.")] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
) -> None:
    """Train a network with simulated clicks.

    The checkpoint is saved every five minutes and at the end; a log of JSON lines is written beside it.
    """
    from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec
    from deepgrow3d_app.training.run import run_training
    from deepgrow3d_app.training.trainer import Recipe

    recipe = Recipe(minutes=minutes, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    spec = ModelSpec() if network == "compact_unet" else CLASSIC_SPEC
    run_training(cases, output, recipe, held_out, spec, start_from, command_line(), console)
