"""``deepgrow3d versions``, ``deepgrow3d rollback``: the networks that were served."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from deepgrow3d_app.cli.app import DEFAULT_CHECKPOINT, CheckpointOption, app, console


@app.command()
def versions(checkpoint: CheckpointOption = DEFAULT_CHECKPOINT) -> None:
    """List the networks that were served, and why each of them was published."""
    from deepgrow3d_app.retraining.versions import Versions

    known = Versions(checkpoint)
    known.check_exists()
    served = known.current()
    table = Table("", "version", "published", "by", "why", box=None)
    for version in known.all():
        why = "" if version.decision is None else version.decision.reason
        when = datetime.fromtimestamp(version.published).astimezone().strftime("%Y-%m-%d %H:%M")
        mark = "served" if served is not None and served.number == version.number else ""
        table.add_row(mark, str(version.number), when, version.made_by, why)
    console.print(table if known.all() else f"Nothing has taken the place of '{checkpoint.name}' yet.")


@app.command()
def rollback(
    version: Annotated[int | None, typer.Option(help="Which.", show_default="the one before")] = None,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
) -> None:
    """Serve an earlier network again. A running server notices at its next click."""
    from deepgrow3d_app.retraining.versions import Versions

    served = Versions(checkpoint).roll_back(version)
    console.print(f"'{checkpoint.name}' is version {served.number} again.")
