"""The labels that the shipped network was trained on beside those of its sources."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.volume.files import read_mask

FOLDER = Path(__file__).parents[2] / "benchmarks" / "labels"
NEXT = FOLDER / "next"
NAMES = sorted(file.name.removesuffix(".nii.gz") for file in FOLDER.glob("*.nii.gz"))
FILES = sorted(FOLDER.rglob("*.nii.gz"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_every_drawn_label_has_a_name_and_every_name_a_label(file):
    labels, _ = read_mask(file)
    values = json.loads(file.with_name(file.name.replace(".nii.gz", ".json")).read_text())
    assert sorted(values.values()) == np.unique(labels)[1:].tolist()


def test_the_readme_and_the_sources_of_the_model_card_count_them_as_they_are():
    counts = {file.stem: len(json.loads(file.read_text())) for file in FOLDER.glob("*.json")}
    assert f"{sum(counts.values())} more structures" in (FOLDER / "README.md").read_text()
    assert sorted(counts) == NAMES
    sources = json.loads((FOLDER.parents[1] / "docs" / "evaluation" / "sources.json").read_text())
    for name, count in counts.items():
        drawn = re.search(r"(\d+) drawn for this training", sources[name]["labels_by"])
        assert drawn is not None
        assert int(drawn[1]) == count


def test_the_readme_counts_those_that_no_network_has_seen():
    counts = [len(json.loads(file.read_text())) for file in NEXT.glob("*.json")]
    assert f"{sum(counts)} structures in [`next`](next)" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", [name for name in NAMES if (NEXT / f"{name}.nii.gz").exists()])
def test_labels_for_the_next_training_add_to_those_before(name):
    labels, affine = read_mask(NEXT / f"{name}.nii.gz")
    before, affine_before = read_mask(FOLDER / f"{name}.nii.gz")
    assert np.allclose(affine, affine_before)
    assert not ((labels > 0) & (before > 0)).any()
    assert labels[labels > 0].min() > before.max()
