"""``deepgrow3d token``: who may call a server."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from deepgrow3d_app.cli.app import app, console

token_app = typer.Typer(
    help="Who may call a server: make, list and revoke tokens. The file keeps only their hashes; give it to "
    "`deepgrow3d serve --tokens`. A running server takes changes at once.",
    no_args_is_help=True,
)
app.add_typer(token_app, name="token")

FileOption = Annotated[Path, typer.Option("--file", help="The file of tokens.")]
NameArgument = Annotated[str, typer.Argument(help="Whose token, such as an annotator's or a program's name.")]
DEFAULT_FILE = Path("tokens.txt")


class RoleName(str, Enum):
    """Roles as they are typed; each may do what those before it may."""

    user = "user"
    annotator = "annotator"
    reviewer = "reviewer"
    admin = "admin"


@token_app.command()
def add(
    name: NameArgument,
    role: Annotated[
        RoleName,
        typer.Option(
            help="user: look and click. annotator: save labels, add images. reviewer: approve, flag and remove labels. "
            "admin: train, replace the network, remove images."
        ),
    ] = RoleName.annotator,
    file: FileOption = DEFAULT_FILE,
) -> None:
    """Make a token. It is shown once."""
    from deepgrow3d_app.serving.security.identity import Role
    from deepgrow3d_app.serving.security.tokens import TokenFile

    made = TokenFile(file).add(name, Role[role.value.upper()])
    console.print(made, highlight=False, markup=False, soft_wrap=True)


@token_app.command("list")
def list_tokens(file: FileOption = DEFAULT_FILE) -> None:
    """Show who has a token."""
    from rich.table import Table

    from deepgrow3d_app.serving.security.tokens import TokenFile

    table = Table("name", "role", title=f"{file.name}")
    for entry in TokenFile(file).entries():
        table.add_row(entry.identity.name, entry.identity.role.title)
    console.print(table)


@token_app.command()
def remove(name: NameArgument, file: FileOption = DEFAULT_FILE) -> None:
    """Revoke somebody's token."""
    from deepgrow3d_app.serving.security.tokens import TokenFile

    TokenFile(file).remove(name)
    console.print(f"The token of '{name}' is good no more.", highlight=False, markup=False)
