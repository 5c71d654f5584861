"""Generated cases that a tiny network is trained on, and what its log says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepgrow3d_app.cases.labelled_case import LabelledCase
from deepgrow3d_app.volume.volume import Volume

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher

STRUCTURES = {"ball": 1, "bar": 2}

# Lines of the log come at 15, 20, 30, 40 and 45 steps, saves at 12, 24 and 36: neither hides what the other forgets.
PLAN: dict[str, dict[str, object]] = {
    "spec": {"channels": [4, 8, 8], "patch_shape": [32, 32, 32], "spacing_mm": [4, 4, 4], "walker_sigmas": [0.0225]},
    "recipe": {"save_every": 12, "validate_every": 15, "validation_structures": 2, "warmup_steps": 5},
}


def generated_case(name: str, shape: tuple[int, int, int], edge_mm: float, seed: int) -> LabelledCase:
    """A ball and a bar of soft tissue in fat, and noise."""
    generator = np.random.default_rng(seed)
    i, j, k = np.ogrid[tuple(slice(0, extent) for extent in shape)]
    middle = np.array(shape) / 2 + generator.uniform(-3, 3, 3)
    radius = 0.22 * min(shape)
    labels = np.zeros(shape, np.uint8)
    labels[2:9, 4:30, 3:9] = STRUCTURES["bar"]
    ball = (i - middle[0]) ** 2 + (j - middle[1]) ** 2 + (k - middle[2]) ** 2 < radius**2
    labels[ball] = STRUCTURES["ball"]
    voxels = np.choose(labels, (-100, 60, 140)) + generator.normal(0, 15, shape)
    affine = np.diag((edge_mm, edge_mm, edge_mm, 1.0))
    return LabelledCase(name, Volume(voxels.astype(np.int16), affine, modality="CT"), labels, STRUCTURES)


def write_plan(launcher: Launcher, **recipe: int) -> str:
    """The tiny plan, in a file."""
    content = {**PLAN, "recipe": {**PLAN["recipe"], **recipe}}
    (launcher.folder / "plan.json").write_text(json.dumps(content))
    return "plan.json"


def figures(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log, without times."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "elapsed_s"} for line in lines]
