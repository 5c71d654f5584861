import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepgrow3d_app.volume.boxed_mask import BoxedMask, bounding_box, intersection, relative, union
from deepgrow3d_app.volume.geometry import AxisOrder

masks = arrays(np.bool_, st.tuples(*[st.integers(1, 6)] * 3))
orders = st.sampled_from(
    [
        AxisOrder((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
        for axes in itertools.permutations((0, 1, 2), 3)
        for flips in itertools.product((False, True), repeat=3)
    ]
)


def boxes_within(shape):
    return st.tuples(*[st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda e: slice(*sorted(e))) for n in shape])


@given(masks.filter(np.any))
def test_a_bounding_box_is_tight(region):
    box = bounding_box(region)
    assert box is not None
    assert region[box].sum() == region.sum()
    for axis in range(3):
        for face in (0, -1):
            assert region[box].take(face, axis=axis).any()


@given(masks)
def test_a_boxed_mask_is_the_mask(mask):
    boxed = BoxedMask.of(mask.view(np.uint8))
    assert boxed.voxels == mask.sum()
    assert boxed.full().dtype == np.uint8
    assert boxed.full().flags.f_contiguous
    np.testing.assert_array_equal(boxed.full(), mask)


def test_whatever_is_not_zero_is_inside():
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1:3, 2, 3:6] = (1, 7, 255)
    boxed = BoxedMask.of(mask)
    assert boxed.box == (slice(1, 3), slice(2, 3), slice(3, 6))
    assert boxed.voxels == 6


@given(masks, orders)
def test_reordering_the_box_is_reordering_the_mask(mask, order):
    boxed = BoxedMask.of(mask.view(np.uint8))
    np.testing.assert_array_equal(boxed.reordered(order).full(), order.apply(mask))
    np.testing.assert_array_equal(boxed.reordered(order).reordered(order.inverse()).full(), mask)


@given(st.data(), masks)
def test_within_a_box_is_that_part_of_the_mask(data, mask):
    box = data.draw(boxes_within(mask.shape))
    np.testing.assert_array_equal(BoxedMask.of(mask.view(np.uint8)).within(box), mask[box])


@given(st.data())
def test_boxes_are_sets_of_voxels(data):
    shape = (5, 4, 6)
    a, b = data.draw(boxes_within(shape)), data.draw(boxes_within(shape))
    in_a, in_b = np.zeros(shape, bool), np.zeros(shape, bool)
    in_a[a], in_b[b] = True, True
    common = intersection(a, b)
    assert (common is None) == (not (in_a & in_b).any())
    if common is not None:
        assert in_a[common].all()
        assert in_b[common].all()
        assert (in_a & in_b).sum() == in_a[common].size
        np.testing.assert_array_equal(in_b[a][relative(common, a)], in_b[common])
    both = union([a, b])
    assert not (in_a | in_b).any() or (in_a | in_b)[both].sum() == (in_a | in_b).sum()
