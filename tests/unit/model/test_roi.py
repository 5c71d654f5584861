import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from deepgrow3d_app.model.roi import Roi

shapes = st.tuples(*[st.integers(3, 14)] * 3)
spacings = st.tuples(*[st.floats(0.4, 4.0)] * 3)
shares = st.tuples(*[st.floats(0.0, 1.0)] * 3)


def region(shape, centre_share, spacing_mm, patch_spacing_mm=(1.0, 1.0, 1.0), patch_shape=(6, 8, 10)):
    centre = tuple(share * (n - 1) for share, n in zip(centre_share, shape, strict=True))
    return Roi.around(centre, patch_shape, patch_spacing_mm, shape, spacing_mm)


def test_equal_spacing_crops_voxel_by_voxel():
    source = np.arange(10 * 9 * 8, dtype=np.int16).reshape(10, 9, 8)
    roi = Roi((1.5, 2.5, 0.5), (1.0, 1.0, 1.0), (4, 4, 4), source.shape)
    np.testing.assert_array_equal(roi.crop(source, 0).numpy(), source[2:6, 3:7, 1:5])


def test_a_coarse_patch_averages_instead_of_skipping():
    source = np.zeros((16, 16, 16), dtype=np.int16)
    source[::2] = 100
    roi = Roi.around((7.5, 7.5, 7.5), (4, 4, 4), (4.0, 4.0, 4.0), source.shape, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(roi.crop(source, 0)[1:3].numpy(), 50, atol=1e-3)


def test_what_lies_outside_the_volume_is_filled():
    roi = Roi.around((1.0, 1.0, 1.0), (8, 8, 8), (1.0, 1.0, 1.0), (4, 4, 4), (1.0, 1.0, 1.0))
    patch = roi.crop(np.ones((4, 4, 4), dtype=np.int16), -7)
    assert (patch == 1).sum() == 64
    assert (patch == -7).sum() == 8**3 - 64


@given(shapes, shares, spacings)
def test_the_region_holds_its_centre_and_stays_inside_where_it_can(shape, centre_share, spacing_mm):
    roi = region(shape, centre_share, spacing_mm)
    for axis in range(3):
        width = roi.step[axis] * roi.patch_shape[axis]
        if width >= shape[axis]:
            assert roi.start[axis] <= -0.5 + 1e-6
            assert roi.start[axis] + width >= shape[axis] - 0.5 - 1e-6
        else:
            assert roi.start[axis] >= -0.5 - 1e-6
            assert roi.start[axis] + width <= shape[axis] - 0.5 + 1e-6
            centre = centre_share[axis] * (shape[axis] - 1)
            assert roi.start[axis] - 1e-6 <= centre <= roi.start[axis] + width + 1e-6


@given(shapes, shares, spacings)
def test_patch_coordinates_follow_what_is_cropped(shape, centre_share, spacing_mm):
    """An image of its own i coordinate reads, at the patch position of a voxel, that voxel's i."""
    roi = region(shape, centre_share, spacing_mm)
    box = roi.source_box
    middle = tuple((extent.start + extent.stop - 1) // 2 for extent in box)
    position = roi.to_patch(middle)
    for axis in range(3):
        start = roi.start[axis] + (position[axis] + 0.5) * roi.step[axis]
        assert start == pytest.approx(middle[axis])


@given(shapes, shares, spacings)
def test_everything_positive_restores_to_the_covered_box(shape, centre_share, spacing_mm):
    roi = region(shape, centre_share, spacing_mm)
    mask = roi.restore(torch.ones(roi.patch_shape)).full()
    expected = np.zeros(shape, dtype=np.uint8)
    expected[roi.source_box] = 1
    np.testing.assert_array_equal(mask, expected)
    assert roi.restore(-torch.ones(roi.patch_shape)).voxels == 0


def test_a_ball_survives_the_way_in_and_out():
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (60, 50, 20)), indexing="ij"), axis=-1)
    spacing_mm = (1.0, 1.2, 3.0)
    ball = np.linalg.norm((grid - (30, 25, 10)) * spacing_mm, axis=-1) < 14
    roi = Roi.around((30, 25, 10), (32, 32, 32), (2.0, 2.0, 2.0), ball.shape, spacing_mm)
    back = roi.restore(roi.crop(ball.astype(np.uint8), 0) - 0.5).full()
    assert 2 * (back & ball).sum() / (back.sum() + ball.sum()) > 0.97


@pytest.mark.parametrize("extent", [1, 2, 5])
def test_what_the_network_says_beyond_the_volume_takes_nothing_from_its_end_slices(extent):
    """Thick slices: a stored voxel is as wide as ten patch voxels, of which those beside the volume are air."""
    roi = Roi.around((2.0, 2.0, 0.0), (8, 8, 60), (1.0, 1.0, 1.0), (8, 8, extent), (1.0, 1.0, 10.0))
    logits = torch.full((8, 8, 60), -10.0)
    inside = [n for n in range(60) if -0.5 <= roi.start[2] + (n + 0.5) * roi.step[2] <= extent - 0.5]
    logits[:, :, inside] = 1.0
    assert roi.restore(logits).voxels == 8 * 8 * extent


def test_beside_a_thin_volume_its_border_is_repeated():
    source = np.arange(64, dtype=np.int16).reshape(8, 8, 1)
    thin = Roi.around((4.0, 4.0, 0.0), (8, 8, 8), (1.0, 1.0, 1.0), (8, 8, 1), (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(thin.crop(source, -7), np.repeat(source, 8, axis=2))
    thick = Roi.around((4.0, 4.0, 0.0), (8, 8, 8), (1.0, 1.0, 1.0), (8, 8, 4), (1.0, 1.0, 1.0))
    assert (thick.crop(np.repeat(source, 4, axis=2), -7) == -7).sum() == 8 * 8 * 4


def test_what_is_positive_beyond_the_volume_only_is_nothing():
    roi = Roi((-8.0, 0.0, 0.0), (1.0, 1.0, 1.0), (16, 4, 4), (1, 4, 4))
    logits = torch.full((16, 4, 4), -1.0)
    logits[0] = 1.0
    assert roi.restore(logits).voxels == 0


@pytest.mark.parametrize("step", [(0.4, 0.7, 1.0), (1.0, 0.3, 0.55), (0.2, 1.0, 0.9)])
def test_a_finer_patch_is_that_of_linear_interpolation(step):
    """Beside SciPy's, with more positions along each axis than are computed at once."""
    generator = np.random.default_rng(0)
    source = generator.normal(size=(23, 31, 27)).astype(np.float32)
    roi = Roi.around((11.0, 15.0, 13.0), (37, 40, 45), step, source.shape, (1.0, 1.0, 1.0))
    places = [start + (np.arange(n) + 0.5) * edge for start, n, edge in zip(roi.start, (37, 40, 45), step, strict=True)]
    covered = [np.clip(p, box.start, box.stop - 1) for p, box in zip(places, roi.source_box, strict=True)]
    expected = ndimage.map_coordinates(source, np.meshgrid(*covered, indexing="ij"), order=1)
    beyond = np.logical_or.reduce(
        np.meshgrid(*((p < -0.5) | (p > n - 0.5) for p, n in zip(places, source.shape, strict=True)), indexing="ij")
    )
    np.testing.assert_allclose(roi.crop(source, 7.0).numpy(), np.where(beyond, 7.0, expected), atol=1e-5)


def test_a_coarser_mask_is_that_of_linear_interpolation():
    logits = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(20, 24, 18)), 1.5).astype(np.float32)
    roi = Roi.around((60.0, 60.0, 60.0), logits.shape, (3.0, 2.5, 4.0), (140, 130, 150), (1.0, 1.0, 1.0))
    places = [
        (np.arange(n) - start) / edge - 0.5 for n, start, edge in zip((140, 130, 150), roi.start, roi.step, strict=True)
    ]
    values = ndimage.map_coordinates(logits, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    inside = np.zeros(values.shape, bool)
    inside[roi.source_box] = True
    found = roi.restore(torch.from_numpy(logits)).full() > 0
    certain = np.abs(values) > 1e-5
    assert found.any()
    assert np.array_equal(found[certain], ((values > 0) & inside)[certain])
