"""The labels that the shipped network was trained on beside those of its sources."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.volume.files import read_mask

FOLDER = Path(__file__).parents[2] / "benchmarks" / "labels"


NAMES = sorted(file.name.removesuffix(".nii.gz") for file in FOLDER.glob("*.nii.gz"))


@pytest.mark.parametrize("name", NAMES)
def test_every_drawn_label_has_a_name_and_every_name_a_label(name):
    labels, _ = read_mask(FOLDER / f"{name}.nii.gz")
    values = json.loads((FOLDER / f"{name}.json").read_text())
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
