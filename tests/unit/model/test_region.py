import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.model.region import first_region, next_region, patch_edges_mm
from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec

SPEC = ModelSpec(patch_shape=(16, 16, 16), spacing_mm=(2.0, 2.0, 2.0), min_zoom=0.25, max_zoom=4.0)
TINY = (slice(40, 42), slice(40, 42), slice(40, 42))


def voxel_mm(clicks, spacing_mm, box=TINY):
    """Edge of a patch voxel when a tiny mask has been found after so many clicks, all in it."""
    indices = [(40 + n % 2, 40 + n // 2 % 2, 40 + n // 4 % 2) for n in range(clicks)]
    region = first_region(SPEC, (100, 100, 100), spacing_mm, indices, box)
    return region.zoom * 2.0


@pytest.mark.parametrize(("clicks", "edge_mm"), [(1, 1.5), (3, 1.5), (4, 1.0), (7, 1.0)])
def test_no_look_is_much_finer_than_the_image(clicks, edge_mm):
    """Voxels of 3 mm: at first half of that, later a third, though the smallest zoom would be finer."""
    assert voxel_mm(clicks, (3.0, 3.0, 3.0)) == pytest.approx(edge_mm)


def test_the_finest_edge_of_the_image_counts():
    flat = (slice(40, 41), slice(40, 41), slice(40, 41))
    assert voxel_mm(3, (2.0, 2.0, 5.0), flat) == pytest.approx(1.0)
    assert voxel_mm(3, (0.8, 0.8, 5.0), flat) == pytest.approx(0.5)


def test_a_coarse_image_is_never_looked_at_from_farther_than_all_of_it():
    region = first_region(SPEC, (4, 4, 4), (20.0, 20.0, 20.0), [(2, 2, 2)], None)
    assert region.zoom * 2.0 * 16 == pytest.approx(80.0)


@pytest.mark.parametrize("clicks", [1, 3, 15])
def test_a_mask_fills_its_share_of_the_region_however_few_the_clicks(clicks):
    box = (slice(20, 80), slice(40, 50), slice(40, 50))
    region = first_region(SPEC, (200, 100, 100), (1.0, 1.0, 1.0), [(50, 45, 45)] * clicks, box)
    assert 60 / (region.zoom * 2.0 * 16) == pytest.approx(0.9)
    assert region.roi.step[0] == pytest.approx(region.zoom * 2.0)


SMALL = (slice(45, 55), slice(45, 55), slice(45, 55))


def test_a_background_click_far_away_does_not_widen_the_region():
    clicks = [(50, 50, 50)] * 3
    alone = first_region(SPEC, (400, 100, 100), (1.0, 1.0, 1.0), clicks, SMALL, [(60, 50, 50)] * 2)
    region = first_region(SPEC, (400, 100, 100), (1.0, 1.0, 1.0), clicks, SMALL, [(60, 50, 50), (390, 50, 50)])
    assert region.roi == alone.roi
    assert region.clicks == (*clicks, (60, 50, 50))
    leaking = (slice(45, 391), slice(45, 55), slice(45, 55))
    assert first_region(SPEC, (400, 100, 100), (1.0, 1.0, 1.0), clicks, leaking, [(390, 50, 50)]).zoom > 4 * alone.zoom


def test_where_not_all_of_a_structure_fits_the_region_holds_the_click_that_the_mask_contradicts():
    """A vessel of 400 mm, and regions of 128 mm at most."""
    mask = (slice(10, 300), slice(45, 55), slice(45, 55))
    for at in (20, 310, 399):
        clicks = [(100, 50, 50), (200, 50, 50), (at, 50, 50)]
        region = first_region(SPEC, (400, 100, 100), (1.0, 1.0, 1.0), clicks, mask, [], [(at, 50, 50)])
        assert region.zoom == SPEC.max_zoom
        assert region.roi.holds((at, 50, 50))
        again = next_region(region, torch.full(SPEC.patch_shape, 1.0))
        assert again is None or again.roi.holds((at, 50, 50))


def test_across_a_long_structure_voxels_are_finer():
    """80 x 54 x 10 voxels of 1 mm: along the second axis as fine as its length allows, along the third one by 1.5."""
    box = (slice(10, 90), slice(20, 74), slice(40, 50))
    region = first_region(SPEC, (100, 100, 100), (1.0, 1.0, 1.0), [(50, 45, 45)] * 3, box)
    widest = 80 / 0.9 / 16
    assert np.allclose(region.roi.step, (widest, max(54 / 0.9 / 16, widest / 1.5), widest / 1.5))


def test_without_a_mask_the_region_is_as_wide_as_it_is_long():
    region = first_region(SPEC, (100, 100, 100), (1.0, 1.0, 1.0), [(10, 45, 45), (90, 45, 45)], None)
    assert len(set(region.roi.step)) == 1


def test_a_spec_may_forbid_stretching():
    box = (slice(10, 90), slice(40, 50), slice(40, 50))
    spec = dataclasses.replace(SPEC, stretch=1.0)
    region = first_region(spec, (100, 100, 100), (1.0, 1.0, 1.0), [(50, 45, 45)] * 3, box)
    assert np.allclose(region.roi.step, 80 / 0.9 / 16)


def test_a_fixed_region_is_never_stretched():
    box = (slice(10, 90), slice(40, 50), slice(40, 50))
    region = first_region(CLASSIC_SPEC, (100, 100, 100), (1.0, 1.0, 1.0), [(50, 45, 45)] * 3, box)
    assert region.roi.step == CLASSIC_SPEC.spacing_mm


def look_again(region, logits):
    wanted = next_region(region, logits)
    assert wanted is not None
    return wanted


def vessel(spec, axis):
    """The region of a mask of 60 x 20 x 20 voxels of 1 mm, the longest along ``axis``."""
    box = [slice(90, 110)] * 3
    box[axis] = slice(70, 130)
    return first_region(spec, (200, 200, 200), (1.0, 1.0, 1.0), [(100, 100, 100)] * 3, (box[0], box[1], box[2]))


@pytest.mark.parametrize("axis", range(3))
def test_a_mask_that_leaves_the_region_across_widens_it_there_alone(axis):
    region = vessel(SPEC, axis)
    across = (axis + 1) % 3
    logits = torch.full(SPEC.patch_shape, -1.0)
    logits.movedim((axis, across), (0, 1))[2:14, :, 7:9] = 1.0
    wanted = look_again(region, logits)
    grown = np.array(wanted.roi.step) / np.array(region.roi.step)
    expected = np.ones(3)
    expected[across] = 1.5
    assert np.allclose(grown, expected)
    assert next_region(wanted, torch.full(SPEC.patch_shape, -1.0)) is None


@pytest.mark.parametrize("axis", range(3))
def test_a_mask_that_leaves_the_region_along_makes_it_longer(axis):
    region = vessel(SPEC, axis)
    logits = torch.full(SPEC.patch_shape, -1.0)
    logits.movedim(axis, 0)[:, 7:9, 7:9] = 1.0
    wanted = look_again(region, logits)
    assert wanted.roi.step[axis] == pytest.approx(1.5 * region.roi.step[axis])
    assert np.allclose(np.delete(wanted.roi.step, axis), region.roi.step[axis])


@pytest.mark.parametrize("axis", range(3))
def test_a_region_that_cannot_be_longer_can_be_wider(axis):
    spec = dataclasses.replace(SPEC, max_zoom=60 / 0.9 / 32)
    region = vessel(spec, axis)
    logits = torch.full(SPEC.patch_shape, -1.0)
    logits.movedim(axis, 0)[2:14, :, :] = 1.0
    wanted = look_again(region, logits)
    assert np.allclose(wanted.roi.step, region.roi.step[axis])
    assert next_region(wanted, logits) is None


edges = st.floats(0.2, 5.0)


@given(
    st.floats(0.1, 8.0), st.tuples(*[st.floats(1.0, 2000.0)] * 3), st.tuples(edges, edges, edges), st.floats(0.0, 9.0)
)
def test_edges_stay_within_their_bounds(zoom, region_mm, spacing_mm, least_zoom):
    spec = ModelSpec(spacing_mm=spacing_mm)
    zooms = np.array(patch_edges_mm(spec, zoom, np.array(region_mm), least_zoom)) / spacing_mm
    assert (zooms <= zoom * (1 + 1e-9)).all()
    assert (zooms >= zoom / spec.stretch * (1 - 1e-9)).all()
    assert (zooms >= min(zoom, spec.min_zoom, least_zoom or np.inf) * (1 - 1e-9)).all()
    enough = zooms * np.array(spec.patch_shape) * spacing_mm >= np.array(region_mm) * (1 - 1e-9)
    assert (enough | np.isclose(zooms, zoom)).all()
