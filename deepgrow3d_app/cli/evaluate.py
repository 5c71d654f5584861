"""``deepgrow3d evaluate``, ``compare`` and ``model-card``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from deepgrow3d_app.cli.app import (
    CALLER,
    DEFAULT_CHECKPOINT,
    CheckpointOption,
    PlainProgress,
    app,
    caller_token,
    check_folder,
    check_output,
    command_line,
    console,
)
from deepgrow3d_app.errors import InvalidRequest

if TYPE_CHECKING:
    from deepgrow3d_app.evaluation.protocol import Method
    from deepgrow3d_app.evaluation.run import Progress

NETWORK, SERVER = "network", "server"
RANDOM_WALKER, SCIKIT_WALKER, GRAPH_CUT = "random-walker", "scikit-image-walker", "graph-cut"
METHODS = (NETWORK, SERVER, RANDOM_WALKER, SCIKIT_WALKER, GRAPH_CUT)


@app.command()
def evaluate(
    cases: Annotated[
        Path,
        typer.Argument(
            help="A case folder (image.nii.gz, labels.nii.gz, structures.json), a folder of many cases, a MONAI Label "
            "studies folder with final labels, or a prepared folder: its validation cases, on the grid prepared."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results.json, summary.csv, report.html.")],
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
    structures: Annotated[
        str | None, typer.Option(help="Names, separated by commas.", show_default="all that the cases have")
    ] = None,
    clicks: Annotated[int, typer.Option(help="Clicks on each structure.", min=1, max=50)] = 15,
    noisy: Annotated[
        bool, typer.Option("--noisy", help="Also simulate a user who misses by 4 mm: a robot's hand flatters a model.")
    ] = False,
    hands: Annotated[
        int,
        typer.Option(
            help="Hands of the noisy user, each with misses of its own; scores are means over them. One hand's luck "
            "moves the mean over a dozen organs by 0.01 to 0.04: more hands, a steadier figure.",
            min=1,
            max=100,
        ),
    ] = 1,
    server: Annotated[
        str | None,
        typer.Option(help=f"Address of a running server: its answers are scored, clicks go through REST. {CALLER}"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(METHODS)}, or another checkpoint's file. Repeatable: the first one's clicks "
            "are also given to the others.",
            show_default=f"{NETWORK}, or {SERVER} with --server",
        ),
    ] = None,
    held_out: Annotated[
        int | None, typer.Option(help="Of many cases, only the last ones by name: as many as training held out.", min=1)
    ] = None,
) -> None:
    """Score clicks: a simulated annotator works on every structure, and each answer is compared with the labels.

    The first click is the structure's deepest voxel, each next one the deepest voxel of the largest error. After
    each, Dice, normalised surface Dice at 2 mm, 95 % Hausdorff distance and seconds are noted, on the stored grid.

    A run that was interrupted goes on where it was when it is started again with the same --output.
    """
    from deepgrow3d_app.cases.folders import find_cases
    from deepgrow3d_app.cases.layouts.prepared_folder import find_prepared_folder
    from deepgrow3d_app.evaluation.results import Protocol
    from deepgrow3d_app.evaluation.run import REPORT, Evaluation, run_evaluation
    from deepgrow3d_app.evaluation.summary import series_of
    from deepgrow3d_app.evaluation.tables import by_structure, overview

    check_folder(output)
    if hands > 1 and not noisy:
        raise InvalidRequest(f"--hands {hands} is given, but nobody is noisy. Add --noisy.")
    # What was prepared for training was trained on, most likely; without a split all cases are scored.
    validation = find_prepared_folder(cases, "validation") if held_out is None else None
    with contextlib.ExitStack() as stack:
        evaluation = Evaluation(
            sources=validation or find_cases(cases, held_out),
            methods=_methods(method or [SERVER if server else NETWORK], checkpoint, server, stack),
            structures=tuple(filter(None, map(str.strip, (structures or "").split(",")))),
            users=("perfect", "noisy") if noisy else ("perfect",),
            protocol=Protocol(click_count=clicks, hands=hands),
            data=cases.resolve().name,
            command=command_line(),
        )
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
        bar = stack.enter_context(ProgressBar(*columns, TimeRemainingColumn(), console=console, transient=True))
        task = bar.add_task("reading", total=1.0)

        plain = PlainProgress()

        def show(progress: Progress) -> None:
            plan = progress.plan
            who = f"{plan.user} user" if plan.hand == 0 else f"{plan.user} user, hand {plan.hand + 1}"
            where = f"{plan.case}: {plan.structure}, {plan.method.record.name}, {who}"
            description = f"{where}, click {progress.clicks}, Dice {progress.dice:.2f}"
            plain.tell(f"{progress.share:.0%}  {description}")
            bar.update(task, completed=progress.share, description=description)

        results = run_evaluation(evaluation, output, show)
    console.print(by_structure(series_of(results)[0], clicks))
    console.print(overview(results))
    console.print(f"{output / REPORT} shows the curves and the worst structures.", soft_wrap=True, markup=False)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="results.json of the one evaluation, or its folder.")],
    b: Annotated[Path, typer.Argument(help="The other's: what became better or worse from A to B is shown.")],
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
) -> None:
    """Tell which structures became better or worse from one evaluation to another.

    Means at 1, 3, 5, 10 and 15 clicks come with a 95 % interval from a paired bootstrap.
    """
    import numpy as np

    from deepgrow3d_app.evaluation.compare import compare as compared
    from deepgrow3d_app.evaluation.comparison_tables import print_comparison
    from deepgrow3d_app.evaluation.journal import RESULTS
    from deepgrow3d_app.evaluation.results import Results

    first, second = (Results.load(path / RESULTS if path.is_dir() else path) for path in (a, b))
    print_comparison(compared(first, second, np.random.default_rng(seed)), console)


@app.command("model-card")
def model_card(
    evaluations: Annotated[
        list[Path], typer.Argument(help="results.json of evaluations whose first method is one checkpoint.")
    ],
    sources: Annotated[Path, typer.Option(help="What is known of the data: a JSON file, by name of their folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write (.md).")],
    ablation: Annotated[
        Path | None, typer.Option(help="What parts of the recipe are worth: made by benchmarks/ablation.py.")
    ] = None,
) -> None:
    """Write the model card: data, licences, scores beside the baselines, limits.

    All figures are taken from the evaluations.
    """
    import io

    from deepgrow3d_app.evaluation.ablation import read_ablation
    from deepgrow3d_app.evaluation.journal import RESULTS
    from deepgrow3d_app.evaluation.model_card import model_card as card
    from deepgrow3d_app.evaluation.model_card import read_sources
    from deepgrow3d_app.evaluation.results import Results
    from deepgrow3d_app.volume.atomic_file import replace_file

    check_output(output, (".md",))
    results = [Results.load(path / RESULTS if path.is_dir() else path) for path in evaluations]
    text = card(results, read_sources(sources), read_ablation(ablation) if ablation else None, command_line())
    replace_file(output, io.BytesIO(text.encode()))
    console.print(f"{output}: written", soft_wrap=True)


def _methods(names: list[str], checkpoint: Path, server: str | None, stack: contextlib.ExitStack) -> tuple[Method, ...]:
    """What the names on the command line stand for; a server's session is closed with ``stack``."""
    from deepgrow3d_app.client.server_method import ServerMethod
    from deepgrow3d_app.evaluation.baselines.graph_cut import GraphCut
    from deepgrow3d_app.evaluation.baselines.random_walker import RandomWalker
    from deepgrow3d_app.evaluation.baselines.scikit_walker import ScikitWalker
    from deepgrow3d_app.evaluation.network_method import NetworkMethod

    if server is not None and SERVER not in names:
        raise InvalidRequest(f"--server is given, but no method asks it. Add --method {SERVER}.")
    if checkpoint != DEFAULT_CHECKPOINT and NETWORK not in names:
        raise InvalidRequest(f"--checkpoint is given, but no method uses it. Add --method {NETWORK}.")
    methods: list[Method] = []
    for name in dict.fromkeys(names):
        if name == NETWORK:
            methods.append(NetworkMethod(checkpoint))
        elif name == SERVER:
            if server is None:
                raise InvalidRequest(f"--method {SERVER} needs an address. Add --server http://127.0.0.1:8000.")
            methods.append(stack.enter_context(ServerMethod(server, token=caller_token())))
        elif name == RANDOM_WALKER:
            methods.append(RandomWalker())
        elif name == SCIKIT_WALKER:
            methods.append(ScikitWalker())
        elif name == GRAPH_CUT:
            methods.append(GraphCut())
        elif Path(name).suffix == ".safetensors":
            methods.append(NetworkMethod(Path(name), name=Path(name).stem))
        else:
            raise InvalidRequest(
                f"There is no method '{name}'. Choose one of {', '.join(METHODS)}, or a .safetensors file."
            )
    taken = [one.record.name for one in methods]
    if len(set(taken)) < len(taken):
        raise InvalidRequest(f"Two methods have one name ({', '.join(taken)}). Rename a checkpoint file.")
    return tuple(methods)
