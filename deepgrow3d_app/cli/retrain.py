"""``deepgrow3d retrain``, ``deepgrow3d batch``: what a running server does, started and watched from a terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deepgrow3d_app.cli.app import CALLER, app, caller_token, console
from deepgrow3d_app.errors import InvalidRequest, NotFound, TrainingError

LOOK_EVERY_S = 1.0
MODEL = "deepgrow3d"

ServerArgument = Annotated[str, typer.Argument(help=f"The server, as it prints its address when it starts. {CALLER}")]
COLUMNS = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())


@app.command()
def retrain(
    server: ServerArgument = "http://127.0.0.1:8000",
    epochs: Annotated[int | None, typer.Option(help="How many.", show_default="the server's: 5")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps an epoch.", show_default="the server's: 60")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak.", show_default="the server's")] = None,
    force: Annotated[bool, typer.Option("--force", help="Publish the network whatever its scores are.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the last training, which was cut off.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the training that runs.")] = False,
) -> None:
    """Train the network of a running server on from the labels saved there.

    It learns from the final labels, is judged on held-out cases of the same studies and on a reference case, and is
    served at once where it is better. Ctrl+C leaves the training running.
    """
    from deepgrow3d_app.client.training_client import TrainingClient

    client = TrainingClient(server, caller_token())
    if stop:
        client.call("DELETE", "/train/")
        while (state := client.call("GET", "/train/"))["status"] == "RUNNING":
            time.sleep(LOOK_EVERY_S)
        console.print(state["message"], soft_wrap=True, highlight=False)
        return
    given = {"max_epochs": epochs, "steps_per_epoch": steps, "learning_rate": learning_rate}
    order: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    state = client.call("POST", f"/train/{MODEL}", {**order, "force": force, "resume": resume, "client_id": "command"})
    with Progress(*COLUMNS, console=console) as bar:
        task = bar.add_task("", total=state["total_steps"])
        told = ""
        while state["status"] == "RUNNING":
            bar.update(task, completed=state["step"], description=f"training {state['id']}: {state['stage']}")
            if state["message"] not in ("", told):
                bar.console.print(told := state["message"], soft_wrap=True, highlight=False)
            time.sleep(LOOK_EVERY_S)
            state = client.call("GET", "/train/")
        bar.update(task, completed=state["step"], description=f"training {state['id']}: {state['status']}")
    if state["status"] not in ("DONE", "STOPPED"):
        raise TrainingError(state["message"])
    console.print(state["message"], soft_wrap=True, highlight=False)


@app.command()
def batch(
    server: ServerArgument = "http://127.0.0.1:8000",
    prompts: Annotated[
        Path | None,
        typer.Option(help='A JSON file: {"IMAGE": {"liver": {"foreground": [[60, 50, 40]], "background": []}}}.'),
    ] = None,
    seeds_from: Annotated[str | None, typer.Option(help="Or the tag of an earlier label, such as 'original'.")] = None,
    images: Annotated[str, typer.Option(help="'unlabeled', 'all', or ids with commas between them.")] = "unlabeled",
    tag: Annotated[str, typer.Option(help="What the masks are saved as.")] = "batch",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also where there is such a label.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the last one, which was cut off.")] = False,
) -> None:
    """Pre-annotate the studies of a running server, one structure after the other, from clicks known beforehand."""
    from deepgrow3d_app.client.training_client import TrainingClient

    client = TrainingClient(server, caller_token())
    order: dict[str, Any] = {"resume": True}
    if not resume:
        chosen: str | list[str] = (
            images if images in ("unlabeled", "all") else [name.strip() for name in images.split(",")]
        )
        order = {"images": chosen, "seeds_from": seeds_from, "label_tag": tag, "overwrite": overwrite}
        if prompts is not None:
            order["prompts"] = _read_prompts(prompts)
    state = client.call("POST", f"/batch/infer/{MODEL}", order)
    told: set[str] = set()
    with Progress(*COLUMNS, console=console) as bar:
        task = bar.add_task("", total=len(state["images"]))
        while True:
            for image, outcome in state["images"].items():
                if outcome["status"] != "waiting" and image not in told:
                    told.add(image)
                    text = outcome["error"] or ", ".join(outcome["structures"])
                    bar.console.print(f"{image}: {outcome['status']}: {text}", soft_wrap=True, markup=False)
            bar.update(task, completed=len(told), description=state["status"].lower())
            if state["status"] != "RUNNING":
                break
            time.sleep(LOOK_EVERY_S)
            state = client.call("GET", "/batch/infer/")
    failed = sum(outcome["status"] == "failed" for outcome in state["images"].values())
    if failed:
        raise NotFound(
            f"{failed} of {len(state['images'])} images could not be drawn; see above. Try again with --resume."
        )
    if state["status"] != "DONE":
        left = sum(outcome["status"] == "waiting" for outcome in state["images"].values())
        why = f": {state['error']}" if state.get("error") else ""
        raise TrainingError(
            f"The batch is {state['status'].lower()}{why}. {left} of {len(state['images'])} images are left. "
            "Go on with --resume."
        )


def _read_prompts(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"'{file}' holds no prompts: {error}. Write one JSON object.") from error
