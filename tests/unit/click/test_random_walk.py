import numpy as np
import pytest
import torch

from deepgrow3d_app.click.random_walk import SEED_RADIUS_VOXELS, conductances_of, walker_maps, walker_seeds

CPU = torch.device("cpu")


def test_conductances_fall_with_the_difference_of_neighbours():
    image = torch.tensor([0.0, 0.0, 0.2]).reshape(3, 1, 1)
    i, j, k = conductances_of(image, sigma=0.2)
    assert i.flatten().tolist() == pytest.approx([1.001, np.exp(-0.5) + 0.001], rel=1e-5)
    assert j.numel() == k.numel() == 0


class TestSeeds:
    def test_the_border_is_background_and_a_click_is_a_ball(self):
        seeds, values = walker_seeds(torch.Size((9, 10, 11)), [(4.0, 5.0, 5.0)], [], CPU)
        on_border = torch.ones(9, 10, 11, dtype=torch.bool)
        on_border[1:-1, 1:-1, 1:-1] = False
        offsets = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (9, 10, 11)), indexing="ij"), dim=-1)
        ball = (offsets - torch.tensor([4, 5, 5])).float().norm(dim=-1) < SEED_RADIUS_VOXELS
        assert torch.equal(seeds, on_border | ball)
        assert torch.equal(values, ball.float())

    def test_where_balls_meet_the_nearest_click_decides(self):
        """Foreground at 4.0, background at 5.4: the voxel 5 lies 1 from the one and 0.4 from the other."""
        clicks = [(4.0, 5.0, 5.0)], [(5.4, 5.0, 5.0)]
        for foreground, background, sign in ((*clicks, 1.0), (*clicks[::-1], 0.0)):
            seeds, values = walker_seeds(torch.Size((10, 10, 10)), foreground, background, CPU)
            assert seeds[4:6, 5, 5].all()
            assert values[4, 5, 5] == sign
            assert values[5, 5, 5] == 1 - sign

    def test_the_order_of_the_clicks_means_nothing(self):
        generator = np.random.default_rng(0)
        foreground, background = generator.uniform(0, 8, (2, 6, 3)).tolist()
        forwards = walker_seeds(torch.Size((9, 9, 9)), foreground, background, CPU)
        backwards = walker_seeds(torch.Size((9, 9, 9)), foreground[::-1], background[::-1], CPU)
        assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))

    def test_a_click_beyond_the_grid_is_drawn_on_its_border(self):
        shape = torch.Size((8, 8, 8))
        beyond = walker_seeds(shape, [(-5.0, 4.0, 30.0)], [(4.0, 99.0, 4.0)], CPU)
        at_border = walker_seeds(shape, [(0.0, 4.0, 7.0)], [(4.0, 7.0, 4.0)], CPU)
        assert all(torch.equal(a, b) for a, b in zip(beyond, at_border, strict=True))
        assert beyond[1][0, 4, 7] == 1


@pytest.fixture(scope="module")
def bright_box():
    """A box of sharp edges in dark tissue, with some noise."""
    truth = torch.zeros(32, 32, 32, dtype=torch.bool)
    truth[8:24, 8:24, 8:24] = True
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.02, truth.shape).astype(np.float32))
    return torch.where(truth, 0.5, -0.5) + noise, truth


class TestMaps:
    def test_a_box_clicked_once_in_its_middle_is_positive_inside_and_negative_outside(self, bright_box):
        image, truth = bright_box
        (odds,) = walker_maps(image, [(15.5, 15.5, 15.5)], [], [0.1])
        assert (odds[10:22, 10:22, 10:22] > 0).all()
        # Smoothing and half resolution blur the border by two voxels.
        around = torch.zeros_like(truth)
        around[6:26, 6:26, 6:26] = True
        assert (odds[~around] < 0).all()

    def test_a_click_is_foreground_for_certain_and_the_border_background(self, bright_box):
        image, _ = bright_box
        for odds in walker_maps(image, [(12.0, 16.0, 20.0)], [(16.0, 16.0, 10.0)], [0.05, 0.5]):
            assert odds[12, 16, 20] == 1
            assert odds[16, 16, 10] == -1
            for axis in range(3):
                for face in (0, -1):
                    assert (odds.select(axis, face) == -1).all()

    def test_log_odds_range_from_minus_one_to_one(self, bright_box):
        image, _ = bright_box
        odds = walker_maps(image, [(15.5, 15.5, 15.5)], [(2.0, 2.0, 2.0)], [0.03, 0.1, 0.3])
        assert odds.shape == (3, 32, 32, 32)
        assert odds.min() == -1
        assert odds.max() == 1

    def test_even_tissue_and_a_click_in_the_middle_give_a_symmetric_map(self):
        (odds,) = walker_maps(torch.zeros(18, 18, 18), [(8.5, 8.5, 8.5)], [], [0.1])
        for axis in range(3):
            torch.testing.assert_close(odds, odds.flip(axis), atol=1e-3, rtol=0)
            torch.testing.assert_close(odds, odds.transpose(axis, (axis + 1) % 3), atol=1e-3, rtol=0)

    def test_a_small_sigma_believes_in_a_border_that_a_large_one_crosses(self, bright_box):
        image, _ = bright_box
        image = 0.3 * image
        strict, lenient = walker_maps(image, [(15.5, 15.5, 15.5)], [], [0.03, 3.0])
        assert strict[10, 10, 10] > lenient[10, 10, 10]

    def test_several_sigmas_are_as_each_alone(self, bright_box):
        image, _ = bright_box
        clicks = [(15.5, 12.0, 15.5)], [(26.0, 16.0, 16.0)]
        together = walker_maps(image, *clicks, [0.05, 0.2, 1.0])
        for sigma, odds in zip([0.05, 0.2, 1.0], together, strict=True):
            torch.testing.assert_close(odds, walker_maps(image, *clicks, [sigma])[0], atol=0.05, rtol=0)

    def test_clicks_beyond_the_patch_leave_it_finite(self, bright_box):
        image, _ = bright_box
        odds = walker_maps(image, [(15.5, 15.5, 15.5), (-9.0, 16.0, 50.0)], [(16.0, 200.0, 16.0)], [0.1])
        assert torch.isfinite(odds).all()
        assert (odds.abs() <= 1).all()
