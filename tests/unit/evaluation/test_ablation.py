import json

import pytest

from deepgrow3d_app.errors import UnreadableVolume
from deepgrow3d_app.evaluation.ablation import read_ablation


def run(seed, trunk, hippocampus):
    return {"seed": seed, "trunk": trunk, "hippocampus": hippocampus, "training_s": 100.0}


@pytest.fixture
def file(tmp_path):
    base = {
        "name": "base",
        "meaning": "as it is",
        "changes": {},
        "runs": [
            run(0, {"1": 0.4, "5": 0.6}, {"1": 0.5, "5": 0.7}),
            run(1, {"1": 0.2, "5": 0.6}, {"1": 0.6, "5": 0.9}),
        ],
    }
    other = {"name": "other", "meaning": "otherwise", "changes": {}, "runs": [run(0, {"1": 0.1}, {"1": 0.3})]}
    content = {"command": "benchmarks/ablation.py", "steps": 300, "cases": [], "base": {}, "variants": [base, other]}
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps(content))
    return path


def test_seeds_are_averaged_and_their_range_is_told(file):
    base, other = read_ablation(file).variants
    assert base.mean("trunk") == pytest.approx({1: 0.3, 5: 0.6})
    assert base.range_of("trunk") == pytest.approx((0.4, 0.5))
    assert base.mean("hippocampus") == pytest.approx({1: 0.55, 5: 0.8})
    assert base.range_of("hippocampus") == pytest.approx((0.6, 0.75))
    assert other.range_of("trunk") == (0.1, 0.1)


def test_a_damaged_file_is_refused(file):
    file.write_text(file.read_text()[:-20])
    with pytest.raises(UnreadableVolume, match=r"Make it by benchmarks/ablation.py"):
        read_ablation(file)
