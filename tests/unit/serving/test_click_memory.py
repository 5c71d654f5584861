import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.serving.click_memory import OVERHEAD_BYTES, ClickMemory, PackedMask, Subject
from deepgrow3d_app.volume.boxed_mask import BoxedMask

LIVER = Subject("ct.nii.gz", (1,), (1,), "liver", "anna")
SPLEEN = Subject("ct.nii.gz", (1,), (1,), "spleen", "anna")
A, B, C = Click((0, 0, 0)), Click((1, 1, 1)), Click((2, 2, 2), is_positive=False)


def mask_of(*voxels):
    mask = np.zeros((8, 8, 8), np.uint8)
    for voxel in voxels:
        mask[voxel] = 1
    return BoxedMask.of(mask)


def at_once(*clicks):
    """The way of whoever sends all of these clicks together."""
    return (frozenset(clicks),)


def recalled(memory, subject, *clicks):
    mask = memory.recall(subject, at_once(*clicks))
    return None if mask is None else mask.voxels


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 1)))
def test_a_packed_mask_unpacks_to_itself(mask):
    assert np.array_equal(PackedMask.pack(BoxedMask.of(mask)).unpack().full(), mask)


def test_a_packed_mask_costs_less_than_a_third_of_the_bits_of_its_box_however_large_the_grid():
    ball = np.asarray(sum((axis - 24.5) ** 2 for axis in np.ogrid[:50, :50, :50])) < 25**2
    large = np.zeros((512, 512, 60), np.uint8)
    large[100:150, 200:250, 5:55] = ball
    n_bytes = PackedMask.pack(BoxedMask.of(ball.astype(np.uint8))).n_bytes
    assert n_bytes - OVERHEAD_BYTES < 50**3 // 8 // 3
    assert PackedMask.pack(BoxedMask.of(large)).n_bytes == n_bytes


def test_exactly_the_same_clicks_get_their_mask_in_any_order():
    memory = ClickMemory(1 << 20)
    memory.remember(LIVER, at_once(A, C), mask_of((0, 0, 0)))
    assert recalled(memory, LIVER, C, A) == 1


def test_other_clicks_get_nothing():
    memory = ClickMemory(1 << 20)
    memory.remember(LIVER, at_once(A, B), mask_of((0, 0, 0), (1, 1, 1)))
    assert recalled(memory, LIVER, A) is None
    assert recalled(memory, LIVER, A, B, C) is None


def test_the_same_clicks_after_others_are_another_way():
    memory = ClickMemory(1 << 20)
    memory.remember(LIVER, (*at_once(A), *at_once(A, B)), mask_of((0, 0, 0)))
    assert recalled(memory, LIVER, A, B) is None
    assert memory.recall(LIVER, (*at_once(A), *at_once(B, A))) is not None


def test_the_same_voxel_on_the_other_side_is_another_click():
    memory = ClickMemory(1 << 20)
    memory.remember(LIVER, at_once(A), mask_of((0, 0, 0)))
    assert recalled(memory, LIVER, Click(A.index, is_positive=False)) is None


@pytest.mark.parametrize(
    "other",
    [
        SPLEEN,
        Subject("mr.nii.gz", (1,), (1,), "liver", "anna"),
        Subject("ct.nii.gz", (2,), (1,), "liver", "anna"),
        Subject("ct.nii.gz", (1,), (2,), "liver", "anna"),
        Subject("ct.nii.gz", (1,), (1,), "liver", "bert"),
        Subject("ct.nii.gz", (1,), (1,), "liver", "anna", "anna"),
    ],
)
def test_subjects_do_not_share_masks(other):
    memory = ClickMemory(1 << 20)
    memory.remember(LIVER, at_once(A), mask_of((0, 0, 0)))
    assert recalled(memory, other, A) is None


def test_the_least_recently_used_mask_is_forgotten_first():
    one = PackedMask.pack(mask_of((0, 0, 0))).n_bytes
    memory = ClickMemory(2 * one)
    memory.remember(LIVER, at_once(A), mask_of((0, 0, 0)))
    memory.remember(SPLEEN, at_once(A), mask_of((1, 1, 1)))
    recalled(memory, LIVER, A)
    memory.remember(SPLEEN, at_once(B), mask_of((2, 2, 2)))
    assert recalled(memory, LIVER, A) == 1
    assert recalled(memory, SPLEEN, A) is None
    assert memory.n_bytes == 2 * one


def test_a_newer_answer_to_the_same_clicks_replaces_the_older():
    memory = ClickMemory(1 << 20)
    memory.remember(LIVER, at_once(A), mask_of((0, 0, 0)))
    memory.remember(LIVER, at_once(A), mask_of((0, 0, 0), (1, 1, 1)))
    assert recalled(memory, LIVER, A) == 2
    assert memory.n_bytes == PackedMask.pack(mask_of((0, 0, 0), (1, 1, 1))).n_bytes


def test_no_room_means_no_memory():
    memory = ClickMemory(0)
    memory.remember(LIVER, at_once(A), mask_of((0, 0, 0)))
    assert recalled(memory, LIVER, A) is None


def test_threads_leave_the_account_in_order():
    one = PackedMask.pack(mask_of((0, 0, 0))).n_bytes
    memory = ClickMemory(5 * one)

    def work(n):
        subject = Subject("ct.nii.gz", (1,), (1,), "liver", str(n))
        for position in range(8):
            click = Click((position, 0, 0))
            memory.remember(subject, at_once(click), mask_of((0, 0, 0)))
            memory.recall(subject, at_once(click, A))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.n_bytes == 5 * one
