"""What all commands share: the application, where it prints, and the shipped network."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepgrow3d_app import __version__
from deepgrow3d_app.errors import DeepGrow3DError, InvalidInput, InvalidRequest

DEFAULT_CHECKPOINT = Path(__file__).parents[2] / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors"

app = typer.Typer(
    help="Click-driven segmentation of CT and MR volumes: serve it, use it, train it, judge it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(markup=False)  # names may hold brackets

CheckpointOption = Annotated[
    Path, typer.Option("--checkpoint", help="Trained network (.safetensors).", show_default="the shipped one")
]


def main() -> None:
    """Run the command line; a known fault becomes one line on stderr and exit status 2 (input) or 1."""
    try:
        app()
    except (DeepGrow3DError, OSError) as error:
        Console(stderr=True).print("Error:", str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, InvalidInput) else 1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


def command_line() -> str:
    """The command as it was typed, with names instead of absolute paths: what it is written into travels."""

    def shortened(word: str) -> str:
        option, is_assignment, value = word.rpartition("=")
        return option + is_assignment + (Path(value).name if Path(value).is_absolute() else value)

    return shlex.join(["deepgrow3d", *map(shortened, sys.argv[1:])])


def check_output(file: Path, extensions: Iterable[str]) -> None:
    """Refuse a file that could not be written, before the work is done and not after."""
    if not file.name.endswith(tuple(extensions)):
        raise InvalidRequest(f"'{file.name}' cannot be written. Let its name end in one of {', '.join(extensions)}.")
    if not file.parent.is_dir():
        raise InvalidRequest(f"There is no folder '{file.parent}' to write '{file.name}' to. Make it first.")
