"""``deepgrow3d prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from deepgrow3d_app.cli.app import PlainProgress, app, console
from deepgrow3d_app.errors import InvalidRequest

if TYPE_CHECKING:
    from deepgrow3d_app.volume.geometry import Spacing

STORED = "stored"


@app.command()
def prepare(
    raw: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of labelled cases: BTCV (img/, label/), Medical Segmentation Decathlon (dataset.json), a "
            "MONAI Label studies folder with final labels, images/ and labels/, case folders; or a .csv or .json "
            "file that lists image,labels[,name,patient]."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The prepared folder; made where it is missing.")],
    spacing: Annotated[
        str, typer.Option(help=f"Voxel edges in mm, R,A,S order, or '{STORED}' to keep each case's own voxels.")
    ] = "1,1,3",
    validation: Annotated[
        float, typer.Option(help="Share of the patients that is kept for validation.", min=0.0, max=0.99)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Draws these patients; the same seed always draws the same.")] = 0,
    workers: Annotated[int, typer.Option(help="Cases that are prepared at once.", min=1)] = 2,
) -> None:
    """Check labelled cases and write them as arrays that training and evaluation map into memory.

    Every pair of image and labels is checked: shape, affine, label values, missing, empty and tiny structures. Each
    fault is reported with its file and remedy; the other cases are prepared all the same. Files that name structures
    or list cases must be sound first. What an interrupted run has finished is kept, and is not done again.
    """
    from deepgrow3d_app.cases.folders import find_cases
    from deepgrow3d_app.cases.prepare import prepare_cases

    sources = [source for folder in raw for source in find_cases(folder)]
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("preparing", total=len(sources))

        plain = PlainProgress()

        def show(done: int, total: int, name: str) -> None:
            plain.tell(f"{done} of {total}: {name}")
            bar.update(task, completed=done, total=total, description=name)

        report = prepare_cases(sources, output, _spacing_mm(spacing), validation, seed, workers, show)
    for fault in report.faults:
        kind = "left out" if fault.is_left_out else "look at"
        console.print(f"{kind}: {fault.case}: {fault.message}", soft_wrap=True, markup=False, highlight=False)
    splits = [case.split for case in report.manifest.cases]
    console.print(
        f"{output}: {splits.count('training')} cases for training, {splits.count('validation')} for validation, "
        f"{len(report.manifest.structures)} structures; {report.new} prepared now, {len(report.left_out)} left out",
        soft_wrap=True,
    )
    if not splits:
        raise InvalidRequest("No case could be prepared. Mend the faults above, then run again.")


def _spacing_mm(text: str) -> Spacing | None:
    if text == STORED:
        return None
    try:
        di, dj, dk = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidRequest(f"'{text}' is no spacing. Write three edges in mm, as 1,1,3, or '{STORED}'.") from error
    return di, dj, dk
