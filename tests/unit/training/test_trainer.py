import json
import math

import numpy as np
import pytest
import torch

from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.training.cases import CasePool, load_group
from deepgrow3d_app.training.patches import PatchSource
from deepgrow3d_app.training.trainer import MAX_SKIPPED_STEPS, Recipe, Trainer


@pytest.fixture
def make_trainer(case_folder, tiny_spec):
    def make(**changes):
        recipe = Recipe(warmup_steps=1, **changes)
        pool = CasePool([load_group(case_folder, tiny_spec, held_out=0)])
        patches = PatchSource(pool, tiny_spec, 0.0, np.random.default_rng(0))
        return Trainer(tiny_spec, recipe, patches, torch.device("cpu"))

    return make


def test_a_bright_box_is_learnt_in_a_few_steps(make_trainer):
    trainer = make_trainer(batch_size=2, learning_rate=5e-3)
    losses = [trainer.train_step() for _ in range(80)]
    # Medians: a region that cuts off all but a corner of the box costs a lot at any time.
    assert np.median(losses[-40:]) < 0.7 * np.median(losses[:8])


def test_annotators_click_where_the_mask_is_wrong_and_leave_in_time(make_trainer):
    trainer = make_trainer(max_clicks=3)
    for _ in range(6):
        trainer.train_step()
        for annotation in trainer.annotations:
            clicks = len(annotation.foreground) + len(annotation.background)
            assert clicks <= 3
            truth = annotation.patch.truth
            assert all(truth[tuple(map(int, point))] for point in annotation.foreground)
            assert not any(truth[tuple(map(int, point))] for point in annotation.background)


def test_equal_seeds_train_equally(make_trainer):
    first, second, other = make_trainer(seed=3), make_trainer(seed=3), make_trainer(seed=4)
    losses = [first.train_step() for _ in range(3)]
    # To rounding: how a convolution sums depends on where its arrays lie in memory.
    assert [second.train_step() for _ in range(3)] == pytest.approx(losses, rel=1e-3)
    assert [other.train_step() for _ in range(3)] != pytest.approx(losses, rel=1e-2)


def test_a_run_leaves_a_loadable_checkpoint_and_a_log(make_trainer, tmp_path, tiny_spec):
    trainer = make_trainer(minutes=0.05)
    output = trainer.train(tmp_path / "run" / "tiny.safetensors", {"data": "a box"}, lambda progress: None)
    checkpoint = Checkpoint.load(output)
    assert checkpoint.spec == tiny_spec
    assert checkpoint.origin["data"] == "a box"
    assert int(checkpoint.origin["steps"]) == trainer.step > 0
    checkpoint.network()
    entries = [json.loads(line) for line in (tmp_path / "run" / "tiny.log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(20, trainer.step + 1, 20))
    assert all(math.isfinite(entry["loss"]) for entry in entries)


def test_a_loss_that_stays_non_finite_stops_the_run(make_trainer):
    trainer = make_trainer()
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    for _ in range(MAX_SKIPPED_STEPS - 1):
        trainer.train_step()
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        trainer.train_step()
    assert trainer.step == 0
