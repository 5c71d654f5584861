"""``deepgrow3d join``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepgrow3d_app import __version__
from deepgrow3d_app.cli.app import app, check_output, command_line, console


@app.command()
def join(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Two or more, of one specification (.safetensors); one with --mirrored.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write (.safetensors).")],
    mirrored: Annotated[bool, typer.Option("--mirrored", help="Let each see a patch's mirror image, too.")] = False,
) -> None:
    """Let several networks answer together, or one for a patch and its mirror image: the mean of the answers counts.

    They may have been trained in different ways, and take the time and the disk of all. Training goes on from the
    result as from any other. Score it with `deepgrow3d evaluate` before you serve it.
    """
    from deepgrow3d_app.model.checkpoint import Checkpoint, joined

    check_output(output, (".safetensors",))
    together = joined([Checkpoint.load(path) for path in checkpoints], mirrored)
    together.origin.update({"command": command_line(), "version": __version__})
    together.save(output)
    count = "1 network that answers" if len(checkpoints) == 1 else f"{len(checkpoints)} networks that answer together"
    console.print(f"{output}: {count}{', for patch and mirror image' if mirrored else ''}", soft_wrap=True)
