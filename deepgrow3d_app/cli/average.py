"""``deepgrow3d average``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepgrow3d_app import __version__
from deepgrow3d_app.cli.app import app, check_output, command_line, console


@app.command()
def average(
    checkpoints: Annotated[list[Path], typer.Argument(help="Two or more, of one training line (.safetensors).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write (.safetensors).")],
) -> None:
    """Average the weights of networks that were trained on from one another.

    Their mean is often better and steadier than each of them. Score it with `deepgrow3d evaluate` before you serve it.
    """
    from deepgrow3d_app.model.checkpoint import Checkpoint, averaged

    check_output(output, (".safetensors",))
    mean = averaged([Checkpoint.load(path) for path in checkpoints])
    mean.origin.update({"command": command_line(), "version": __version__})
    mean.save(output)
    console.print(f"{output}: the mean of {len(checkpoints)} networks", soft_wrap=True)
