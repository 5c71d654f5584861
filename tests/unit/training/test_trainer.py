import dataclasses
import io
import math

import numpy as np
import pytest
import torch

from deepgrow3d_app.errors import CheckpointError, TrainingError
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.training import trainer as trainer_module
from deepgrow3d_app.training.plan import TrainingPlan
from deepgrow3d_app.training.ranks import Ranks, ToldByTheFirst
from deepgrow3d_app.training.trainer import MAX_SKIPPED_STEPS, RECENT_LOSSES, Recent, Trainer

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def make_trainer(make_patches):
    """``make_trainer(seed=3)``: on the box, by the tiny plan with these changes to its recipe."""

    def make(weights=None, **changes):
        patches = make_patches(**changes)
        return Trainer(TrainingPlan(patches.spec, patches.recipe), patches, ALONE, weights)

    return make


def as_read_from_disk(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_a_bright_box_is_learnt_in_a_few_steps(make_trainer):
    trainer = make_trainer(batch_size=2, learning_rate=5e-3, is_augmented=False)
    losses = [trainer.train_step() for _ in range(80)]
    # Medians: a region that cuts off all but a corner of the box costs a lot at any time.
    assert np.median(losses[-40:]) < 0.7 * np.median(losses[:8])


def test_annotators_leave_in_time(make_trainer):
    trainer = make_trainer(max_clicks=3, batch_size=3, batches_in_turn=1)
    for _ in range(8):
        trainer.train_step()
        for annotation in trainer.batch.annotations:
            assert annotation.rounds < annotation.rounds_in_all <= 3
            assert len(annotation.foreground) + len(annotation.background) == annotation.rounds
    assert min(annotation.number for annotation in trainer.batch.annotations) >= 8 // 3


def test_batches_take_turns(make_trainer):
    trainer = make_trainer(batch_size=2, batches_in_turn=3)
    assert [one.slot for batch in trainer.batches for one in batch.annotations] == list(range(6))
    clicked = []
    for _ in range(6):
        batch = trainer.batch
        trainer.train_step()
        clicked.append(trainer.batches.index(batch))
    assert clicked == [0, 1, 2, 0, 1, 2]


def test_the_answer_is_the_mask_of_the_next_click(make_trainer):
    trainer = make_trainer(max_clicks=15, batches_in_turn=1)
    answers = []
    trainer.network.register_forward_hook(lambda module, inputs, logits: answers.append(logits.detach()[:, 0] > 0))
    trainer.train_step()
    stayed = [place for place, annotation in enumerate(trainer.batch.annotations) if annotation.number == 0]
    assert stayed
    assert all(torch.equal(trainer.batch.masks[place], answers[0][place]) for place in stayed)


def test_equal_seeds_train_equally(make_trainer):
    first, second, other = make_trainer(seed=3), make_trainer(seed=3), make_trainer(seed=4)
    losses = [first.train_step() for _ in range(3)]
    # To rounding: how a convolution sums depends on where its arrays lie in memory.
    assert [second.train_step() for _ in range(3)] == pytest.approx(losses, rel=1e-3)
    assert [other.train_step() for _ in range(3)] != pytest.approx(losses, rel=1e-2)


def test_a_restored_trainer_goes_on_as_if_nothing_had_happened(make_trainer):
    trainer = make_trainer(seed=3, batch_size=3, max_clicks=4)
    for _ in range(5):
        trainer.train_step(0.1)
    state = as_read_from_disk(trainer.state())
    losses = [trainer.train_step(0.2) for _ in range(4)]

    restored = make_trainer(seed=3, batch_size=3, max_clicks=4)
    restored.train_step()
    restored.restore(state)
    assert (restored.step, restored.recent.mean_loss) == (5, pytest.approx(np.mean(state["losses"])))
    assert [restored.train_step(0.2) for _ in range(4)] == pytest.approx(losses, rel=1e-5)
    assert (restored.step, restored.average.updates) == (trainer.step, trainer.average.updates) == (9, 9)
    for name, weight in trainer.average.weights.items():
        torch.testing.assert_close(restored.average.weights[name], weight, rtol=1e-4, atol=1e-6)
    assert restored.recent.mean_dice == pytest.approx(trainer.recent.mean_dice, rel=1e-3)


@pytest.mark.parametrize("has_instructions", [True, False])
def test_a_restored_trainer_computes_in_the_arithmetic_of_before(make_trainer, monkeypatch, has_instructions):
    monkeypatch.setattr(trainer_module, "cpu_has_bfloat16", lambda: has_instructions)
    monkeypatch.setattr(trainer_module, "reduced_precision", lambda device: torch.bfloat16)
    state = as_read_from_disk(make_trainer().state())
    monkeypatch.setattr(trainer_module, "reduced_precision", lambda device: None)
    restored = make_trainer()
    assert not restored.in_bfloat16
    restored.restore(state)
    assert restored.in_bfloat16 is has_instructions
    del state["in_bfloat16"]  # as versions before this one saved it
    another = make_trainer()
    another.restore(state)
    assert not another.in_bfloat16


@pytest.mark.parametrize(("chosen", "expected"), [(torch.bfloat16, torch.bfloat16), (None, torch.float32)])
def test_a_step_is_computed_in_the_arithmetic_that_was_chosen(make_trainer, monkeypatch, chosen, expected):
    monkeypatch.setattr(trainer_module, "reduced_precision", lambda device: chosen)
    trainer = make_trainer()
    answered = []
    trainer.network.register_forward_hook(lambda module, inputs, logits: answered.append(logits.dtype))
    trainer.train_step()
    assert answered == [expected]


def test_training_starts_from_given_weights(make_trainer, tiny_spec):
    torch.manual_seed(99)
    weights = {name: weight.detach().clone() for name, weight in build_network(tiny_spec).named_parameters()}
    trainer = make_trainer(weights)
    assert all(torch.equal(trainer.average.weights[name], weight) for name, weight in weights.items())
    other = build_network(dataclasses.replace(tiny_spec, channels=(4, 8, 12)))
    with pytest.raises(CheckpointError, match="do not fit"):
        make_trainer(dict(other.named_parameters()))


def test_networks_that_answer_together_learn_together(make_patches, tiny_spec):
    patches = make_patches(batch_size=2)
    spec = dataclasses.replace(tiny_spec, networks=2)
    trainer = Trainer(TrainingPlan(spec, patches.recipe), patches, ALONE)
    before = {name: weight.detach().clone() for name, weight in trainer.network.named_parameters()}
    trainer.train_step()
    changed = {
        name.partition(".")[0] for name, weight in trainer.network.named_parameters() if not weight.equal(before[name])
    }
    assert changed == {"0", "1"}


def test_the_average_follows_the_network(make_trainer):
    trainer = make_trainer(average_decay=0.0)
    trainer.train_step()
    for name, parameter in trainer.network.named_parameters():
        torch.testing.assert_close(trainer.average.weights[name], parameter.detach())


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine(make_trainer):
    trainer = make_trainer(learning_rate=0.8, warmup_steps=4)
    assert [trainer.learning_rate(done) for done in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx([0.2, 0.15, 0.1, 0.0])
    rates = []
    for step in range(6):
        trainer.step = step
        rates.append(trainer.learning_rate(0.0))
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert trainer.learning_rate(1.7) == trainer.learning_rate(1.0) == 0.0
    assert trainer.learning_rate(-0.1) == 0.8


def test_a_step_is_taken_at_the_scheduled_rate(make_trainer):
    trainer = make_trainer(learning_rate=0.01, warmup_steps=4)
    trainer.train_step(0.5)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 4 / 2)


def test_a_step_without_a_finite_loss_changes_nothing_but_the_patches(make_trainer):
    trainer = make_trainer(batches_in_turn=1)
    trainer.train_step()
    before = as_read_from_disk(trainer.state())
    trainer.batch.images[0] = float("nan")
    assert math.isnan(trainer.train_step())
    after = trainer.state()
    assert after["step"] == before["step"] == 1
    assert (before["skipped"], after["skipped"]) == (0, 1)
    assert after["losses"] == before["losses"]
    assert all(torch.equal(after["network"][name], weight) for name, weight in before["network"].items())
    numbers = [[one["number"] for one in state["annotations"]] for state in (before, after)]
    assert numbers[1] == [number + 1 for number in numbers[0]]
    assert math.isfinite(trainer.train_step())
    assert trainer.state()["skipped"] == 0


def test_a_loss_that_stays_non_finite_stops_the_run(make_trainer):
    trainer = make_trainer()
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    for _ in range(MAX_SKIPPED_STEPS - 1):
        assert math.isnan(trainer.train_step())
    with pytest.raises(TrainingError, match=rf"in {MAX_SKIPPED_STEPS} steps in a row \(step 0\). Check the images"):
        trainer.train_step()
    assert trainer.step == 0
    assert all(torch.isfinite(weight).all() for weight in trainer.average.weights.values())
    assert isinstance(Ranks(1, 2, torch.device("cpu")).refusal("so in all processes"), ToldByTheFirst)


def test_only_the_latest_figures_count():
    recent = Recent()
    assert math.isnan(recent.mean_loss)
    assert recent.mean_dice == {}
    recent.add(1000.0, {1: [0.0]})
    for _ in range(RECENT_LOSSES):
        recent.add(2.0, {1: [0.5, 0.5], 2: [0.1], 3: [0.25]})
    assert recent.mean_loss == 2.0
    assert recent.mean_dice == {1: 0.5, 3: 0.25}
