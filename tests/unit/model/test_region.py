import numpy as np
import pytest

from deepgrow3d_app.model.region import first_region
from deepgrow3d_app.model.spec import ModelSpec

SPEC = ModelSpec(patch_shape=(16, 16, 16), spacing_mm=(2.0, 2.0, 2.0), min_zoom=0.25, max_zoom=4.0)
TINY = (slice(40, 42), slice(40, 42), slice(40, 42))


def voxel_mm(clicks, spacing_mm, box=TINY):
    """Edge of a patch voxel when a tiny mask has been found after so many clicks, all in it."""
    indices = [(40 + n % 2, 40 + n // 2 % 2, 40 + n // 4 % 2) for n in range(clicks)]
    region = first_region(SPEC, (100, 100, 100), spacing_mm, indices, box)
    return region.zoom * 2.0


@pytest.mark.parametrize(("clicks", "edge_mm"), [(1, 1.5), (3, 1.5), (4, 1.0), (6, 1.0), (7, 0.5)])
def test_the_first_looks_are_not_much_finer_than_the_image(clicks, edge_mm):
    """Voxels of 3 mm: at first half of that, then a third, then as fine as the smallest zoom."""
    assert voxel_mm(clicks, (3.0, 3.0, 3.0)) == pytest.approx(edge_mm)


def test_the_finest_edge_of_the_image_counts():
    flat = (slice(40, 41), slice(40, 41), slice(40, 41))
    assert voxel_mm(1, (2.0, 2.0, 5.0), flat) == pytest.approx(1.0)
    assert voxel_mm(1, (0.8, 0.8, 5.0), flat) == pytest.approx(0.5)


def test_a_coarse_image_is_never_looked_at_from_farther_than_all_of_it():
    region = first_region(SPEC, (4, 4, 4), (20.0, 20.0, 20.0), [(2, 2, 2)], None)
    assert region.zoom * 2.0 * 16 == pytest.approx(80.0)


def test_a_mask_fills_its_share_of_the_region_however_few_the_clicks():
    box = (slice(10, 90), slice(40, 50), slice(40, 50))
    region = first_region(SPEC, (100, 100, 100), (1.0, 1.0, 1.0), [(50, 45, 45)], box)
    assert 80 / (region.zoom * 2.0 * 16) == pytest.approx(0.9)
    assert np.allclose(region.roi.step, region.zoom * 2.0)
