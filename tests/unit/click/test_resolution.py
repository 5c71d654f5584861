import pytest
import torch
from torch.nn import functional

from deepgrow3d_app.click.resolution import at_full_resolution, at_half_resolution


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_between_two_voxels_the_nearer_one_counts_thrice(axis):
    shape = [1, 1, 1, 1, 1]
    shape[axis] = 2
    doubled = at_full_resolution(torch.tensor([0.0, 4.0]).view(shape))
    wide = [1, 1, 2, 2, 2]
    wide[axis] = 4
    assert list(doubled.shape) == wide
    assert torch.equal(
        doubled, torch.tensor([0.0, 1.0, 3.0, 4.0]).view([4 if n == axis else 1 for n in range(5)]).expand(wide)
    )


@pytest.mark.parametrize("shape", [(1, 2, 3, 4, 5), (2, 1, 1, 6, 2), (1, 3, 8, 1, 1)])
def test_full_resolution_is_that_of_trilinear_interpolation(shape):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = functional.interpolate(maps, scale_factor=2, mode="trilinear")
    torch.testing.assert_close(at_full_resolution(maps), expected, atol=1e-6, rtol=0)


def test_there_and_back_a_ramp_stays_a_ramp():
    """But for two voxels at either end, where the mean is over fewer."""
    ramp = torch.arange(16.0).view(16, 1, 1).expand(16, 4, 4)
    back = at_full_resolution(at_half_resolution(ramp)[None, None])[0, 0]
    torch.testing.assert_close(back[3:-3], ramp[3:-3])
