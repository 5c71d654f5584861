import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.simulator import ClickSimulator

masks = arrays(bool, (6, 5, 4))


def cube(shape, low, high):
    region = np.zeros(shape, dtype=bool)
    region[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return region


def test_the_first_click_is_the_middle_of_the_structure():
    truth = cube((8, 8, 8), (1, 1, 1), (6, 6, 6))
    click = ClickSimulator((1.0, 1.0, 1.0)).next_click(truth, np.zeros_like(truth))
    assert click == Click((3, 3, 3), is_positive=True)


def test_depth_is_measured_in_millimetres():
    # 3 x 5 x 7 voxels of 4 x 1 x 1 mm: the short way out is along j, so any middle voxel of j wins over i and k.
    truth = cube((9, 9, 9), (3, 2, 1), (6, 7, 8))
    click = ClickSimulator((4.0, 1.0, 1.0)).next_click(truth, np.zeros_like(truth))
    assert click is not None
    assert click.index[1] == 4


def test_the_larger_error_is_clicked_and_its_sign_is_that_of_the_truth():
    truth = cube((10, 10, 10), (0, 0, 0), (3, 3, 3))
    mask = truth | cube((10, 10, 10), (5, 5, 5), (10, 10, 10))
    mask[0, 0, 0] = False
    assert ClickSimulator((1.0, 1.0, 1.0)).next_click(truth, mask) == Click((7, 7, 7), is_positive=False)


def test_touching_errors_of_both_kinds_stay_apart():
    truth = cube((9, 3, 3), (0, 0, 0), (3, 3, 3))
    mask = cube((9, 3, 3), (3, 0, 0), (9, 3, 3))
    click = ClickSimulator((1.0, 1.0, 1.0)).next_click(truth, mask)
    assert click is not None
    assert not click.is_positive
    assert 3 <= click.index[0] < 9


def test_nothing_to_correct_gives_no_click():
    truth = cube((4, 4, 4), (1, 1, 1), (3, 3, 3))
    assert ClickSimulator((1.0, 1.0, 1.0)).next_click(truth, truth) is None


spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 3.0, 7.5])] * 3)


@given(masks, masks, spacings, st.sets(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3)), max_size=4))
def test_the_deepest_free_voxel_of_the_largest_error_as_the_protocol_says(truth, mask, spacing_mm, taken):
    """Voxels that were clicked in vain stay a part of their error: they are only not clicked again."""
    click = ClickSimulator(spacing_mm).next_click(truth, mask, taken)
    free = np.ones(truth.shape, bool)
    free[tuple(np.array(list(taken), int).reshape(-1, 3).T)] = False
    errors = []
    for kind in (truth & ~mask, mask & ~truth):
        numbers, count = ndimage.label(kind, np.ones((3, 3, 3)))
        errors += [numbers == number for number in range(1, count + 1)]
    if not mask.any():
        errors = [truth]  # nothing was drawn: all pieces of the structure are one error
    errors = [error for error in errors if (error & free).any()]
    if not errors:
        assert click is None
        return
    assert click is not None
    largest = max(int(error.sum()) for error in errors)
    (hit,) = [error for error in errors if error[click.index]]
    assert hit.sum() == largest
    depth_mm = ndimage.distance_transform_edt(np.pad(hit, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1] * free
    assert np.isclose(depth_mm[click.index], depth_mm.max(), rtol=1e-5)


@given(masks, masks)
def test_clicks_land_on_errors_with_the_right_sign_and_never_twice(truth, mask):
    simulator = ClickSimulator((1.0, 2.0, 3.0))
    clicked: list[tuple[int, int, int]] = []
    for _ in range(4):
        click = simulator.next_click(truth, mask, clicked)
        if click is None:
            assert all(truth[i, j, k] == mask[i, j, k] or (i, j, k) in clicked for i, j, k in np.ndindex(6, 5, 4))
            return
        assert click.index not in clicked
        assert truth[click.index] != mask[click.index]
        assert click.is_positive == truth[click.index]
        clicked.append(click.index)
