import edt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from deepgrow3d_app.click.depth import error_depth_mm, squared_depth

edges_mm = st.tuples(*(st.sampled_from([0.5, 0.7, 1.0, 2.0, 3.3]),) * 3)
batches = array_shapes(min_dims=4, max_dims=4, max_side=9).flatmap(lambda shape: arrays(bool, shape))


def depth_by_edt(region, spacing_mm):
    return edt.edt(region.view(np.uint8), anisotropy=spacing_mm, black_border=True)


def blobs(seed, share):
    """A region of several voxels' depth that reaches the border of its array in places."""
    noise = np.random.default_rng(seed).normal(size=(5, 6, 7)).repeat(4, 0).repeat(3, 1).repeat(2, 2)
    return noise < np.quantile(noise, share)


@given(batches, edges_mm)
def test_squared_depth_is_that_of_edt_on_any_regions(regions, spacing_mm):
    found = squared_depth(torch.from_numpy(regions), spacing_mm)
    assert found.dtype == torch.float32
    for depth, region in zip(found.sqrt().numpy(), regions, strict=True):
        np.testing.assert_allclose(depth, depth_by_edt(region, spacing_mm), rtol=1e-5)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (4.0, 0.6, 1.7)])
def test_squared_depth_is_that_of_edt_on_deep_regions(share, spacing_mm):
    regions = np.stack([blobs(seed, share) for seed in range(3)])
    found = squared_depth(torch.from_numpy(regions), spacing_mm).sqrt().numpy()
    expected = np.stack([depth_by_edt(region, spacing_mm) for region in regions])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_border_of_the_array_is_the_nearest_outside_of_a_full_one():
    """The middle of 3 x 5 x 7 full voxels is 2, 3 and 4 voxels from the first ones beyond: 2 * 2 mm, 3 mm, 4 mm."""
    depth = squared_depth(torch.ones(1, 3, 5, 7, dtype=torch.bool), (2.0, 1.0, 1.0))
    assert depth[0, 1, 2, 3] == 3.0**2
    assert depth[0, 0, 0, 0] == 1.0
    assert not squared_depth(torch.zeros(1, 3, 5, 7, dtype=torch.bool), (2.0, 1.0, 1.0)).any()


def test_squared_depth_by_hand_on_a_diagonal():
    """The only voxel outside of a cube lies at its corner: one voxel along each axis from (1, 1, 1)."""
    region = torch.ones(1, 9, 9, 9, dtype=torch.bool)
    region[0, 4, 4, 4] = False
    depth = squared_depth(region, (1.0, 2.0, 3.0))
    assert depth[0, 5, 5, 5] == 1 + 4 + 9
    assert depth[0, 4, 5, 5] == 4 + 9
    assert depth[0, 4, 4, 4] == 0


def test_the_regions_of_a_batch_know_nothing_of_each_other():
    regions = torch.from_numpy(np.stack([blobs(0, 0.2), np.ones((20, 18, 14), dtype=bool), blobs(1, 0.6)]))
    together = squared_depth(regions, (1.0, 2.0, 1.5))
    alone = [squared_depth(region[None], (1.0, 2.0, 1.5))[0] for region in regions]
    assert torch.equal(together, torch.stack(alone))


@given(batches, st.integers(0, 99), edges_mm)
def test_error_depth_is_the_same_by_either_way_and_zero_where_the_mask_is_right(truths, seed, spacing_mm):
    masks = np.random.default_rng(seed).random(truths.shape) < 0.5
    found = error_depth_mm(torch.from_numpy(truths), torch.from_numpy(masks), spacing_mm)
    missed, invented = torch.from_numpy(truths & ~masks), torch.from_numpy(masks & ~truths)
    by_torch = (squared_depth(missed, spacing_mm) + squared_depth(invented, spacing_mm)).sqrt()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, by_torch, rtol=1e-5, atol=0)
    assert ((found > 0).numpy() == (truths != masks)).all()


def test_missed_and_invented_voxels_that_touch_are_two_regions():
    """Voxels 0 to 2 are missed, 3 to 5 invented: each is a run of three, not half of a run of six."""
    truths, masks = torch.zeros(2, 1, 8, 9, 9, dtype=torch.bool)
    truths[0, 1:4] = True
    masks[0, 4:7] = True
    depth = error_depth_mm(truths, masks, (1.0, 1.0, 1.0))
    assert depth[0, :, 4, 4].tolist() == [0, 1, 2, 1, 1, 2, 1, 0]
