import io
import math

import numpy as np
import pytest
import torch

from deepgrow3d_app.click.batched import PolicyMix
from deepgrow3d_app.training.annotation import MISS_MM, AnnotationBatch
from deepgrow3d_app.training.plan import TrainingPlan

CPU = torch.device("cpu")
ONLY_INSIDE = PolicyMix(0.0, 0.0, 1.0, 0.0, 0.0)


@pytest.fixture
def make_batch(make_patches):
    """``make_batch([0, 1], seed=7)``: annotators in these slots, with these changes to the tiny recipe."""

    def make(slots, **changes):
        patches = make_patches(**changes)
        return AnnotationBatch(patches, TrainingPlan(patches.spec, patches.recipe), slots, CPU)

    return make


def answers(batch, number):
    """Masks that depend on the slot and the round, not on the batch: the truth, shifted."""
    shifts = [1 + (annotation.slot + number) % 4 for annotation in batch.annotations]
    return torch.stack([truth.roll(shift, 0) for truth, shift in zip(batch.truths, shifts, strict=True)])


def work(batch, rounds):
    """Clicks and answers in turn; returns what the network was shown, one tensor a round."""
    shown = []
    for number in rounds:
        batch.click()
        shown.append(batch.inputs())
        batch.answer(answers(batch, number))
    return shown


def as_read_from_disk(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_annotators_click_inside_the_errors_of_the_last_answer(make_batch):
    batch = make_batch([0, 1, 2], policies=ONLY_INSIDE)
    for number in range(8):
        before = [(len(a.foreground), len(a.background)) for a in batch.annotations]
        batch.click()
        for place, (annotation, (foreground, background)) in enumerate(zip(batch.annotations, before, strict=True)):
            new = annotation.foreground[foreground:] + annotation.background[background:]
            assert len(new) == 1
            assert batch.truths[place][new[0]] != batch.masks[place][new[0]]
            assert all(batch.truths[place][index] for index in annotation.foreground)
            assert not any(batch.truths[place][index] for index in annotation.background)
        batch.answer(answers(batch, number))


def test_annotators_leave_for_a_new_patch_after_their_rounds(make_batch):
    batch = make_batch([0, 1, 2], max_clicks=3)
    stays: dict[int, set[int]] = {}
    for number in range(12):
        before = [(a.slot, a.number, a.rounds, a.rounds_in_all) for a in batch.annotations]
        batch.click()
        batch.answer(answers(batch, number))
        for annotation, (slot, patch, rounds, rounds_in_all) in zip(batch.annotations, before, strict=True):
            assert 1 <= rounds_in_all <= 3
            stays.setdefault(rounds_in_all, set()).add(slot)
            assert annotation.slot == slot
            leaves = rounds + 1 == rounds_in_all
            assert annotation.number == patch + leaves
            assert annotation.rounds == (0 if leaves else rounds + 1)
            assert len(annotation.foreground) + len(annotation.background) == annotation.rounds
    assert stays.keys() == {1, 2, 3}


def test_annotators_who_stay_make_all_clicks(make_batch):
    batch = make_batch([0, 1, 2], max_clicks=3, staying_share=1.0)
    for number in range(7):
        assert [annotation.rounds_in_all for annotation in batch.annotations] == [3, 3, 3]
        assert [annotation.rounds for annotation in batch.annotations] == [number % 3] * 3
        batch.click()
        batch.answer(answers(batch, number))


def test_a_new_patch_begins_without_clicks_or_mask(make_batch):
    batch = make_batch([4], max_clicks=1)
    batch.click()
    assert batch.answer(answers(batch, 0)).keys() == {1}
    (annotation,) = batch.annotations
    patch = batch.patches.draw(4, 1)
    assert annotation.number == 1
    assert annotation.foreground == annotation.background == []
    assert not batch.masks.any()
    assert torch.equal(batch.images[0], patch.image)
    assert torch.equal(batch.truths[0], patch.truth)


def test_the_dice_of_an_answer_is_told_by_the_number_of_clicks(make_batch):
    """The truth answers the first annotator, nothing the second: Dice of 1 and of 0."""
    batch = make_batch([0, 1])
    batch.click()
    masks = batch.truths.clone()
    masks[1] = False
    assert batch.answer(masks) == {1: [1.0, 0.0]}


def test_a_mask_without_fault_gets_no_click(make_batch):
    batch = make_batch([0, 1], max_clicks=15)
    batch.click()
    numbers = [annotation.number for annotation in batch.annotations]
    batch.answer(batch.truths.clone())
    stayed = [a for a, number in zip(batch.annotations, numbers, strict=True) if a.number == number]
    assert stayed
    batch.click()
    assert all(len(annotation.foreground) == 1 and not annotation.background for annotation in stayed)


def test_the_previous_mask_is_shown_unless_it_is_forgotten(make_batch):
    for forget_probability in (0.0, 1.0):
        batch = make_batch([0, 1, 2], forget_probability=forget_probability)
        for number in range(4):
            batch.click()
            expected = batch.masks.float() if forget_probability == 0 else torch.zeros_like(batch.images)
            assert torch.equal(batch.inputs()[:, 3], expected)
            batch.answer(answers(batch, number))


def test_masks_are_forgotten_as_often_as_the_recipe_says(make_batch):
    batch = make_batch(range(4), forget_probability=0.5, max_clicks=15)
    seen = forgotten = 0
    for number in range(12):
        batch.click()
        for mask, shown in zip(batch.masks, batch.inputs()[:, 3], strict=True):
            if mask.any():
                seen += 1
                forgotten += not shown.any()
        batch.answer(answers(batch, number))
    assert seen > 25
    assert forgotten / seen == pytest.approx(0.5, abs=0.25)


def test_every_click_on_a_patch_is_drawn_anew(make_batch):
    """Where the network never answers, a number drawn once would choose neighbour after neighbour."""
    batch = make_batch(range(4), policies=ONLY_INSIDE, max_clicks=15)
    distances = []
    for _ in range(10):
        before = [list(annotation.foreground) for annotation in batch.annotations]
        batch.click()
        for annotation, clicks in zip(batch.annotations, before, strict=True):
            distances += [math.dist(annotation.foreground[-1], clicks[-1])] if clicks else []
        batch.answer(torch.zeros_like(batch.truths))
    assert len(distances) > 15
    assert np.median(distances) > 3


def test_hands_miss_by_millimetres(make_batch):
    batch = make_batch(range(6), max_clicks=1)
    for _ in range(3):
        for annotation in batch.annotations:
            edge_mm = batch.patches.draw(annotation.slot, annotation.number).edge_mm
            assert MISS_MM[0] <= annotation.miss_voxels * edge_mm <= MISS_MM[1]
        batch.leave()


def test_leaving_gives_everyone_a_new_patch(make_batch):
    batch = make_batch([0, 1])
    work(batch, range(1))
    numbers = [annotation.number for annotation in batch.annotations]
    batch.leave()
    assert [annotation.number for annotation in batch.annotations] == [number + 1 for number in numbers]
    assert not batch.masks.any()


def test_an_annotator_does_not_depend_on_who_is_in_the_batch_with_him(make_batch):
    together = work(make_batch([0, 1, 2, 3], seed=5), range(6))
    for slots in ([0, 1], [2, 3], [3]):
        apart = work(make_batch(slots, seed=5), range(6))
        assert all(torch.equal(all_[slots], some) for all_, some in zip(together, apart, strict=True))


def test_other_seeds_are_other_annotators(make_batch):
    first, second = (work(make_batch([0], seed=seed), range(1)) for seed in (5, 6))
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("slots", [[0, 1, 2, 3], [2, 3], [1]], ids=["alone", "one of two", "one of four"])
def test_a_restored_batch_goes_on_exactly_whoever_holds_its_slots(make_batch, slots):
    batch = make_batch([0, 1, 2, 3], seed=5)
    work(batch, range(5))
    state = as_read_from_disk(batch.state())
    masks = batch.masks.clone()
    unbroken = work(batch, range(5, 10))

    restored = make_batch(slots, seed=5)
    work(restored, range(2))
    restored.restore(state)
    assert [one["slot"] for one in restored.state()] == slots
    assert torch.equal(restored.masks, masks[slots])
    for expected, found in zip(unbroken, work(restored, range(5, 10)), strict=True):
        assert torch.equal(expected[slots], found)


def test_a_state_is_restored_to_itself(make_batch):
    batch = make_batch([0, 1], seed=5)
    work(batch, range(4))
    state = as_read_from_disk(batch.state())
    restored = make_batch([0, 1], seed=5)
    restored.restore(state)
    for before, after in zip(state, restored.state(), strict=True):
        assert torch.equal(before.pop("mask"), after.pop("mask"))
        assert before == after


def test_all_patches_of_a_restored_batch_are_asked_for_before_the_first_is_waited_for(make_batch, make_patches):
    state = as_read_from_disk(make_batch([0, 1, 2]).state())
    batch = make_batch([0, 1, 2])
    calls: list[tuple[str, int, int]] = []

    class Watched:
        def __init__(self, patches):
            self.patches = patches

        def expect(self, slots, number):
            calls.extend(("expect", slot, number) for slot in slots)

        def draw(self, slot, number):
            calls.append(("draw", slot, number))
            return self.patches.draw(slot, number)

    batch.patches = Watched(make_patches())
    batch.restore(state)
    assert calls == [(what, slot, 0) for what in ("expect", "draw") for slot in (0, 1, 2)]
