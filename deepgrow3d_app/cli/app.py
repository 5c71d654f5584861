"""What all commands share: the application, where it prints, and the shipped network."""

from __future__ import annotations

import io
import os
import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepgrow3d_app import __version__
from deepgrow3d_app.client import TOKEN_VARIABLE
from deepgrow3d_app.errors import DeepGrow3DError, InvalidInput, InvalidRequest
from deepgrow3d_app.model.cores import limit_threads

DEFAULT_CHECKPOINT = Path(__file__).parents[2] / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors"

app = typer.Typer(
    help="Click-driven segmentation of CT and MR volumes: serve it, use it, train it, judge it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(markup=False)  # names may hold brackets


class PlainProgress:
    """Progress for files and pipes, where no bar is drawn: a line now and then.

    Args:
        every_s: seconds from one line to the next, at least.
    """

    def __init__(self, every_s: float = 20.0) -> None:
        self._every_s = every_s
        self._told = time.monotonic()

    def tell(self, text: str) -> None:
        """Print ``text``, unless there is a bar or another line was printed lately."""
        if not console.is_terminal and time.monotonic() - self._told >= self._every_s:
            self._told = time.monotonic()
            console.print(text, soft_wrap=True, highlight=False)


CALLER = f"Where people have to sign in, the variable {TOKEN_VARIABLE} holds the token of whoever calls."

CheckpointOption = Annotated[
    Path, typer.Option("--checkpoint", help="Trained network (.safetensors).", show_default="the shipped one")
]
ServedOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Trained network (.safetensors) to serve.",
        envvar="DEEPGROW3D_CHECKPOINT",
        show_envvar=True,
        show_default="the shipped one",
    ),
]


def main() -> None:
    """Run the command line; a known fault becomes one line on stderr and exit status 2 (input) or 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be in the encoding that is printed
            stream.reconfigure(errors="backslashreplace")
    limit_threads()  # before the commands import what counts cores
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


def caller_token() -> str:
    """The token that servers are called with."""
    return os.environ.get(TOKEN_VARIABLE, "").strip()


def check_folder(folder: Path) -> None:
    """Refuse a folder that is a file, before the work is done and not after."""
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"'{folder}' is a file. Name a folder.")


def check_output(file: Path, extensions: Iterable[str]) -> None:
    """Refuse a file that could not be written, before the work is done and not after."""
    if not file.name.endswith(tuple(extensions)):
        raise InvalidRequest(f"'{file.name}' cannot be written. Let its name end in one of {', '.join(extensions)}.")
    if file.is_dir():
        raise InvalidRequest(f"'{file}' is a folder. Name a file to write.")
    if not file.parent.is_dir():
        raise InvalidRequest(f"There is no folder '{file.parent}' to write '{file.name}' to. Make it first.")
    if not os.access(file.parent, os.W_OK):
        raise InvalidRequest(f"'{file.name}' cannot be written to '{file.parent}': it may not be written to.")
