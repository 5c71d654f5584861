import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import ContradictoryClicks, NoForegroundClick
from deepgrow3d_app.evaluation.baselines.region import BACKGROUND, FOREGROUND, UNKNOWN, ClickRegion, seeds_of
from deepgrow3d_app.volume.geometry import AxisOrder
from deepgrow3d_app.volume.volume import Volume


def ct(shape, spacing_mm=(1.0, 1.0, 1.0), value=0):
    return Volume(np.full(shape, value, dtype=np.int16), np.diag([*spacing_mm, 1.0]), modality="CT")


def test_a_volume_smaller_than_the_region_is_seen_whole_in_its_own_voxels_within_a_layer_of_air():
    region = ClickRegion.around(ct((6, 7, 8), value=440), [Click((3, 3, 3))], extent_mm=100, voxel_count=10**6)
    assert region.image.shape == (8, 9, 10)
    np.testing.assert_array_equal(region.image[1:-1, 1:-1, 1:-1], 1)
    assert (region.image == -1).sum() == 8 * 9 * 10 - 6 * 7 * 8


def test_inside_a_large_volume_the_region_is_a_cube_around_the_click():
    region = ClickRegion.around(ct((90, 90, 90)), [Click((45, 45, 45))], extent_mm=40, voxel_count=20**3)
    assert region.image.shape == (20, 20, 20)  # voxels of 2 mm
    assert region.roi.step == pytest.approx((2, 2, 2))
    assert region.roi.to_patch((45, 45, 45)) == pytest.approx((9.5, 9.5, 9.5))


def test_a_thin_slab_is_seen_in_finer_voxels():
    """40 x 40 x 5 mm in 1000 voxels: 2 mm each, and a layer of air above and below."""
    region = ClickRegion.around(ct((90, 90, 5)), [Click((45, 45, 2))], extent_mm=40, voxel_count=1000)
    assert region.roi.step == pytest.approx((2, 2, 2))
    assert region.image.shape == (20, 20, 5)


def test_the_region_grows_to_hold_clicks_that_lie_far_apart():
    far = [Click((5, 45, 45)), Click((84, 45, 45), is_positive=False)]
    region = ClickRegion.around(ct((90, 90, 90)), far, extent_mm=40, voxel_count=20**3)
    i, j, k = region.roi.to_patch((5, 45, 45))
    assert region.seeds[round(i), round(j), round(k)] == FOREGROUND
    i, j, k = region.roi.to_patch((84, 45, 45))
    assert region.seeds[round(i), round(j), round(k)] == BACKGROUND


def test_seeds_are_balls_and_the_border_is_background():
    seeds = seeds_of((7, 7, 7), [(3.0, 3.0, 3.0)], [True])
    assert (seeds == FOREGROUND).sum() == 1 + 6 + 12  # centre, faces, edges
    assert (seeds == BACKGROUND).sum() == 7**3 - 5**3
    assert (seeds == UNKNOWN).sum() == 5**3 - 19


def test_where_two_balls_meet_the_nearest_click_decides_in_whatever_order_they_come():
    points, signs = [(3.0, 3.0, 3.0), (4.9, 3.0, 3.0)], [True, False]
    seeds = seeds_of((9, 7, 7), points, signs)
    assert seeds[3, 3, 3] == FOREGROUND
    assert seeds[4, 3, 3] == BACKGROUND  # 1 voxel from one click, 0.9 from the other
    np.testing.assert_array_equal(seeds, seeds_of((9, 7, 7), points[::-1], signs[::-1]))


@given(
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.floats(0.5, 5.0)] * 3),
    st.sampled_from([-1.0, 1.0]),
    st.data(),
)
def test_clicks_are_obeyed_on_the_stored_grid_whatever_the_scores_say(axes, flips, shape, edges, score, data):
    """In all 48 axis orders and on anisotropic grids: only the click's own voxel is sure, and it is."""
    affine = AxisOrder((axes[0], axes[1], axes[2]), flips).apply_to_affine(np.diag([*edges, 1.0]), shape)
    index = st.tuples(*[st.integers(0, n - 1) for n in shape])
    foreground = data.draw(index)
    background = data.draw(index.filter(lambda i: i != foreground)) if max(shape) > 1 else None
    clicks = [Click(foreground)] + ([] if background is None else [Click(background, is_positive=False)])
    volume = Volume(np.zeros(shape, dtype=np.int16), affine, modality="CT")
    region = ClickRegion.around(volume, clicks, extent_mm=20, voxel_count=500)
    mask = region.restore(np.full(region.image.shape, score))
    assert mask.shape == shape
    assert mask[foreground] == 1
    assert background is None or mask[background] == 0


def test_clicks_that_say_nothing_or_two_things_are_refused():
    with pytest.raises(NoForegroundClick):
        ClickRegion.around(ct((4, 4, 4)), [Click((1, 1, 1), is_positive=False)], 240, 1000)
    with pytest.raises(ContradictoryClicks):
        ClickRegion.around(ct((4, 4, 4)), [Click((1, 1, 1)), Click((1, 1, 1), is_positive=False)], 240, 1000)
