"""One evaluation as the command line starts it: a case, a network, a baseline, one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from deepgrow3d_app.errors import NotFound, UnreadableVolume
from deepgrow3d_app.evaluation.protocol import NetworkMethod, Round, annotate, repeat
from deepgrow3d_app.evaluation.random_walker import RandomWalker
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.volume.files import read_mask, read_volume
from deepgrow3d_app.volume.grid import check_grid
from deepgrow3d_app.volume.volume import Mask, Volume

REPORTED_CLICKS = (1, 3, 5, 10, 15)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """An image with a reference: the label map and the value of each structure's name."""

    volume: Volume
    labels: Mask
    values: dict[str, int]


def load_case(folder: Path) -> Case:
    """A case folder with ``image.nii.gz``, ``labels.nii.gz`` and ``structures.json``.

    Raises:
        NotFound: there is no such folder.
        InvalidInput: one of the files is missing or damaged.
        LabelMismatch: the labels do not lie on the image's grid.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder '{folder}'. Name one with image.nii.gz, labels.nii.gz and structures.json.")
    names = folder / "structures.json"
    try:
        structures = json.loads(names.read_text(encoding="utf-8"))["structures"]
        values = {name: int(entry["value"]) for name, entry in structures.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableVolume(
            str(names), f"{type(error).__name__}: {error}", 'Write {"structures": {NAME: {"value": V}}}.'
        ) from error
    volume = read_volume(folder / "image.nii.gz")
    labels, affine = read_mask(folder / "labels.nii.gz")
    check_grid(labels.shape, affine, volume, f"'{folder / 'labels.nii.gz'}'")
    return Case(volume, labels, values)


def run_evaluation(
    folder: Path,
    checkpoint: Path,
    structures: Sequence[str] | None,
    click_count: int,
    with_random_walker: bool,
    console: Console,
) -> None:
    """Print Dice after 1, 3, 5, 10, 15 clicks for the network, and for a random walker beside it.

    The walker is given the clicks that the network's answers led to, and in another run those that its
    own answers lead to: neither choice favours one method unseen.

    Raises:
        InvalidInput: the case cannot be read.
        NotFound: a structure is not in the case.
        CheckpointError: there is no such network.
    """
    case = load_case(folder)
    names = list(structures) if structures is not None else list(case.values)
    for name in names:
        if name not in case.values:
            raise NotFound(f"There is no structure '{name}' in '{folder}'. It has: {', '.join(case.values)}.")
        if not (case.labels == case.values[name]).any():
            raise NotFound(f"'{name}' has no voxel in the labels of '{folder}'. Leave it out.")
    network = NetworkMethod(Predictor.from_checkpoint(checkpoint))
    walker = RandomWalker()
    scores: dict[str, list[list[Round]]] = {}
    with console.status("") as status:
        for name in names:
            truth = case.labels == case.values[name]
            status.update(f"{name}: {network.name}")
            rounds = list(annotate(network, case.volume, truth, click_count))
            scores.setdefault(network.name, []).append(rounds)
            if with_random_walker:
                status.update(f"{name}: {walker.name}")
                clicks = [r.click for r in rounds]
                scores.setdefault(f"{walker.name}, same clicks", []).append(
                    list(repeat(walker, case.volume, truth, clicks))
                )
                scores.setdefault(f"{walker.name}, its own clicks", []).append(
                    list(annotate(walker, case.volume, truth, click_count))
                )
    console.print(_table(folder.name, names, scores, [n for n in REPORTED_CLICKS if n <= click_count]))


def _table(title: str, names: Sequence[str], scores: dict[str, list[list[Round]]], reported: Sequence[int]) -> Table:
    """Structures in rows, methods in columns: Dice at the reported clicks; below, their mean and median seconds."""
    table = Table(title=f"Dice on {title} after {' / '.join(map(str, reported))} clicks")
    table.add_column("structure")
    columns = []
    for method, sessions in scores.items():
        table.add_column(method, justify="right")
        dice = np.array([[rounds[n - 1].dice for n in reported] for rounds in sessions])
        seconds = float(np.median([r.seconds for rounds in sessions for r in rounds if r.click is not None]))
        cells = [" ".join(f"{value:.2f}" for value in row) for row in [*dice, dice.mean(axis=0)]]
        columns.append([*cells, f"{seconds:.2f}"])
    for row in zip([*names, "mean", "seconds a click"], *columns, strict=True):
        table.add_row(*row)
    return table
