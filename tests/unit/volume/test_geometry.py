"""AxisOrder: every order of axes, held against the world position of each voxel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.volume.geometry import AxisOrder, spacing_mm

ALL_ORDERS = [
    AxisOrder(axes, flips)  # type: ignore[arg-type]  # itertools forgets that there are three
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]
SHAPE = (2, 3, 4)


def world(affine: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    return (affine @ (*index, 1.0))[:3]


def signed_permutation(order: AxisOrder) -> np.ndarray:
    """The affine, in unit steps, of an array that ``order`` brings to RAS+."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, (source_axis, flip) in enumerate(zip(order.source_axes, order.flips, strict=True)):
        matrix[axis, source_axis] = -1 if flip else 1
    return matrix


def test_there_are_48_orders():
    assert len(set(ALL_ORDERS)) == 48


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_undo_restores_the_array(order):
    array = np.arange(24).reshape(SHAPE)
    np.testing.assert_array_equal(order.undo(order.apply(array)), array)


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_apply_copies_nothing(order):
    array = np.arange(24).reshape(SHAPE)
    assert np.shares_memory(order.apply(array), array)


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_every_voxel_keeps_its_value_and_world_position(order, oblique_affine):
    array = np.arange(24).reshape(SHAPE)
    ordered = order.apply(array)
    ordered_affine = order.apply_to_affine(oblique_affine, SHAPE)
    for index in np.ndindex(*SHAPE):
        moved = order.apply_to_index(index, SHAPE)
        assert ordered[moved] == array[index]
        np.testing.assert_allclose(world(ordered_affine, moved), world(oblique_affine, index), atol=1e-9)


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_spacing_follows_its_axis(order, oblique_affine):
    moved = order.apply_to_spacing(spacing_mm(oblique_affine))
    np.testing.assert_allclose(moved, spacing_mm(order.apply_to_affine(oblique_affine, SHAPE)))


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_to_ras_finds_each_order(order):
    affine = signed_permutation(order) @ np.diag((0.7, 1.3, 5.0, 1.0))
    assert AxisOrder.to_ras(affine) == order
    ordered = order.apply_to_affine(affine, SHAPE)
    assert np.count_nonzero(ordered[:3, :3]) == 3
    assert (np.diag(ordered) > 0).all()


def test_to_ras_of_a_hand_computed_lps_array():
    order = AxisOrder.to_ras(np.diag((-1.0, -1.0, 2.0, 1.0)))
    assert order == AxisOrder((0, 1, 2), (True, True, False))
    assert order.apply_to_index((0, 0, 0), SHAPE) == (1, 2, 0)


@given(st.tuples(*[st.floats(-np.pi, np.pi)] * 3), st.sampled_from(ALL_ORDERS))
def test_to_ras_leaves_no_better_order(angles, turned):
    """After it, the identity is the best assignment of axes to world axes, with no axis to flip."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        p, q = (axis + 1) % 3, (axis + 2) % 3
        turn[p, p] = turn[q, q] = np.cos(angle)
        turn[p, q], turn[q, p] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation @ signed_permutation(turned)[:3, :3] @ np.diag((0.5, 1.0, 4.0))
    ordered = AxisOrder.to_ras(affine).apply_to_affine(affine, SHAPE)
    cosines = ordered[:3, :3] / np.linalg.norm(ordered[:3, :3], axis=0)
    best = max(sum(abs(cosines[w, axes[w]]) for w in range(3)) for axes in itertools.permutations(range(3)))
    assert np.trace(np.abs(cosines)) == pytest.approx(best)
    assert (np.diag(cosines) >= 0).all()
