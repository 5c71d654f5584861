"""The cases that the shipped network is trained on, but for the hippocampi: labels of sources and drawn ones together.

    python benchmarks/training_cases.py DATA --output CASES [--next]

``DATA`` holds the volumes by the names in ``docs/evaluation/sources.json``, each as ``image.nii.gz``,
``labels.nii.gz`` and ``structures.json``. Slices of the lungs are halved, and the header of ``ct-spleen8``, which
mirrors left and right, is set right. Each folder in ``CASES`` then is a case for ``deepgrow3d train``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.labelled_case import structures_in
from deepgrow3d_app.volume.files import encode_volume, read_mask, write_mask
from deepgrow3d_app.volume.geometry import Affine
from deepgrow3d_app.volume.volume import Mask, Volume

LABELS = Path(__file__).parent / "labels"
NEXT = LABELS / "next"
CASES = ("ct-slab", "ct-aorta", "ct-pulmonary", "ct-spleen8", "ct-lung1", "ct-lung2", "mr-abdomen")
HALVED = ("ct-lung1", "ct-lung2")
MIRRORED = ("ct-spleen8",)


def halved(image: npt.NDArray[np.int16], labels: Mask, affine: Affine) -> tuple[npt.NDArray[np.int16], Mask, Affine]:
    """Each slice at half its resolution: blocks of 2 x 2 voxels; a label where it has half of the block or more.

    Args:
        image, labels: (i, j, k), with even extents in the slice.
        affine: of both.
    """
    i, j, k = image.shape
    blocks = (i // 2, 2, j // 2, 2, k)
    coarse = np.zeros((i // 2, j // 2, k), np.uint8)
    values = np.unique(labels)
    for value in values[values > 0]:
        coarse[(labels == value).reshape(blocks).mean(axis=(1, 3)) >= 0.5] = value
    mean = image.reshape(blocks).mean(axis=(1, 3))
    step = np.diag([2.0, 2.0, 1.0, 1.0])
    step[:2, 3] = 0.5  # the middle of a block
    return mean.round().astype(np.int16), coarse, affine @ step


def with_drawn(
    labels: Mask, names: dict[str, int], affine: Affine, name: str, folders: Sequence[Path]
) -> tuple[Mask, dict[str, int]]:
    """``labels`` and ``names``, and those of the case ``name`` in ``folders``: where two label a voxel, the first wins.

    Raises:
        ValueError: drawn labels lie on another grid than ``labels`` with ``affine``, or use a name or a value again.
    """
    labels, names = labels.copy(), dict(names)
    for folder in folders:
        file = folder / f"{name}.nii.gz"
        if not file.exists():
            continue
        drawn, drawn_affine = read_mask(file)
        if drawn.shape != labels.shape or not np.allclose(drawn_affine, affine, atol=1e-2):
            raise ValueError(
                f"{file} lies on another grid than the labels of {name}. Take the volume as its source has it."
            )
        added: dict[str, int] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        if not set(added).isdisjoint(names) or not set(added.values()).isdisjoint(names.values()):
            raise ValueError(f"{file} uses a name or a value that {name} has already: {added}, {names}.")
        labels[labels == 0] = drawn[labels == 0]
        names |= added
    return labels, names


def write_case(data: Path, output: Path, name: str, folders: Sequence[Path]) -> int:
    """Write the case ``name`` to a folder in ``output``; returns how many structures it has."""
    (source,) = find_cases(data / name)
    case = source.load()
    image, labels, affine = case.volume.array, case.labels, case.volume.affine
    if name in HALVED:
        image, labels, affine = halved(image, labels, affine)
    labels, names = with_drawn(labels, dict(source.names), affine, name, folders)
    if name in MIRRORED:
        affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine
    structures = structures_in(labels, names)
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.nii.gz").write_bytes(encode_volume(Volume(image, affine)))
    write_mask(labels, affine, folder / "labels.nii.gz")
    (folder / "structures.json").write_text(json.dumps({"structures": structures}, indent=1), encoding="utf-8")
    return len(structures)


def main() -> None:
    """Write all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the volumes, with the labels of their sources")
    parser.add_argument("--output", type=Path, required=True, help="the cases; made where it is missing")
    parser.add_argument("--next", action="store_true", help="with labels that no shipped network has seen yet")
    arguments = parser.parse_args()
    console = Console()
    for name in CASES:
        count = write_case(arguments.data, arguments.output, name, (LABELS, NEXT) if arguments.next else (LABELS,))
        console.print(f"{name}: {count} structures")


if __name__ == "__main__":
    main()
