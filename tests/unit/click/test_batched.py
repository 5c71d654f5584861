from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepgrow3d_app.click import batched
from deepgrow3d_app.click.batched import BORDER_DEPTH_VOXELS, Policy, PolicyMix, next_clicks
from deepgrow3d_app.click.depth import error_depth_mm
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.errors import InvalidRequest

SHAPE = (6, 5, 4)
SPACING_MM = (1.0, 2.0, 3.0)
patches = arrays(bool, (3, *SHAPE))
exact_policies = st.sampled_from([policy for policy in Policy if policy is not Policy.DISPLACED])
seeds = st.integers(0, 2**32)


MISS_VOXELS = 2.0


def one_click(truth, mask, policy, generator, clicked=(), spacing_mm=SPACING_MM):
    """The click on a single patch, given as NumPy arrays."""
    batch = torch.from_numpy(truth)[None], torch.from_numpy(mask)[None]
    (click,) = next_clicks(*batch, [list(clicked)], [policy], [MISS_VOXELS], [generator], spacing_mm)
    return click


@given(patches, patches, exact_policies, seeds)
def test_every_click_lies_in_an_error_with_the_sign_of_the_truth(truths, masks, policy, seed):
    generators = [np.random.default_rng([seed, patch]) for patch in range(3)]
    batch = torch.from_numpy(truths), torch.from_numpy(masks)
    clicks = next_clicks(*batch, [[]] * 3, [policy] * 3, [MISS_VOXELS] * 3, generators, SPACING_MM)
    for truth, mask, click in zip(truths, masks, clicks, strict=True):
        if click is None:
            assert (truth == mask).all()
        else:
            assert truth[click.index] != mask[click.index]
            assert click.is_positive == truth[click.index]


@given(patches, patches, st.lists(st.sampled_from(Policy), min_size=3, max_size=3), seeds)
def test_a_click_does_not_depend_on_the_other_patches_of_the_batch(truths, masks, policies, seed):
    together = next_clicks(
        torch.from_numpy(truths),
        torch.from_numpy(masks),
        [[(0, 0, 0)], [], [(1, 2, 3), (5, 4, 3)]],
        policies,
        [MISS_VOXELS] * 3,
        [np.random.default_rng([seed, patch]) for patch in range(3)],
        SPACING_MM,
    )
    alone = [
        one_click(truths[patch], masks[patch], policies[patch], np.random.default_rng([seed, patch]), clicked)
        for patch, clicked in enumerate([[(0, 0, 0)], [], [(1, 2, 3), (5, 4, 3)]])
    ]
    assert together == alone


@given(patches, patches, st.lists(st.sampled_from(Policy), min_size=3, max_size=3), seeds)
def test_the_way_for_gpus_chooses_the_same_voxels_as_the_way_for_cpus(truths, masks, policies, seed):
    """Both run on this CPU. No number comes so close to the edge of a voxel that the order of sums would matter."""
    chances = np.random.default_rng(seed).random(3).tolist()
    truths[2, 0, 0, 0], masks[2, 0, 0, 0] = True, False  # and the others may be without fault
    at_once = batched._places(torch.from_numpy(truths), torch.from_numpy(masks), policies, chances, SPACING_MM)
    one_by_one = [batched._place(*patch, SPACING_MM) for patch in zip(truths, masks, policies, chances, strict=True)]
    assert at_once == one_by_one


def test_the_way_for_gpus_finds_nothing_where_nothing_is_wrong():
    truths = torch.ones(2, *SHAPE, dtype=torch.bool)
    assert batched._places(truths, truths, [Policy.MIDDLE] * 2, [0.5] * 2, SPACING_MM) == [None, None]


@given(arrays(bool, SHAPE), arrays(bool, SHAPE), st.sampled_from(Policy), seeds)
def test_a_voxel_is_never_clicked_twice(truth, mask, policy, seed):
    generator = np.random.default_rng(seed)
    clicked: list[tuple[int, int, int]] = []
    for _ in range(6):
        click = one_click(truth, mask, policy, generator, clicked)
        if click is None:
            assert all(index in clicked for index in zip(*(truth != mask).nonzero(), strict=True))
            return
        assert click.index not in clicked
        assert all(type(position) is int for position in click.index)
        clicked.append(click.index)


@pytest.mark.parametrize(("chance", "index"), [(0.0, (1, 2, 1)), (0.5, (3, 2, 3)), (1 - 2**-53, (4, 2, 2))])
@pytest.mark.parametrize("is_for_gpus", [False, True])
def test_a_number_from_0_to_1_chooses_among_the_voxels_of_an_error_in_their_order(chance, index, is_for_gpus):
    """The first, the fourth and the last of six, although voxels that are right come before and after them."""
    truth = np.zeros(SHAPE, dtype=bool)
    truth[1, 2, 1:3] = truth[2, 2, 0] = truth[3, 2, 3] = truth[4, 2, 1:3] = True
    mask = np.zeros_like(truth)
    if is_for_gpus:
        batch = torch.from_numpy(np.stack((truth, ~mask))), torch.from_numpy(np.stack((mask, mask)))
        place, _ = batched._places(*batch, [Policy.INSIDE] * 2, [chance, 0.5], SPACING_MM)
    else:
        place = batched._place(truth, mask, Policy.INSIDE, chance, SPACING_MM)
    assert place == (index, True)


@pytest.mark.parametrize("policy", Policy)
def test_nothing_to_correct_gives_no_click(policy):
    truth = np.zeros(SHAPE, dtype=bool)
    truth[1:4, 2:4] = True
    generator = np.random.default_rng(0)
    assert one_click(truth, truth, policy, generator) is None
    mask = truth.copy()
    mask[0, 0, 0] = True
    assert one_click(truth, mask, policy, generator, [(0, 0, 0)]) is None


def test_a_patch_without_fault_gets_no_click_beside_one_with_a_fault():
    truths = torch.zeros(2, *SHAPE, dtype=torch.bool)
    truths[1, 3, 3, 3] = True
    generators = [np.random.default_rng(patch) for patch in range(2)]
    masks = torch.zeros_like(truths)
    first, second = next_clicks(truths, masks, [[], []], [Policy.INSIDE] * 2, [0.0] * 2, generators, SPACING_MM)
    assert first is None
    assert second is not None
    assert second.index == (3, 3, 3)


@given(st.tuples(*(st.integers(1, 9),) * 3), st.tuples(*(st.integers(0, 3),) * 3), st.booleans(), seeds)
def test_deepest_is_as_deep_as_the_click_of_the_evaluations_user(size, low, is_missed, seed):
    region = np.zeros((12, 12, 12), dtype=bool)
    region[tuple(slice(start, start + extent) for start, extent in zip(low, size, strict=True))] = True
    nothing = np.zeros_like(region)
    truth, mask = (region, nothing) if is_missed else (nothing, region)
    found = one_click(truth, mask, Policy.DEEPEST, np.random.default_rng(seed))
    expected = ClickSimulator(SPACING_MM).next_click(truth, mask)
    assert found is not None
    assert expected is not None
    depth = error_depth_mm(torch.from_numpy(truth)[None], torch.from_numpy(mask)[None], SPACING_MM)[0]
    assert depth[found.index] == depth[expected.index] == depth.max()
    assert found.is_positive == expected.is_positive == is_missed


def test_the_only_deepest_voxel_is_the_click_of_the_evaluations_user():
    truth = np.zeros((12, 12, 12), dtype=bool)
    truth[2:9, 1:8, 4:11] = True
    found = one_click(truth, np.zeros_like(truth), Policy.DEEPEST, np.random.default_rng(0), spacing_mm=(1.0,) * 3)
    assert found == ClickSimulator((1.0,) * 3).next_click(truth, np.zeros_like(truth))
    assert found is not None
    assert found.index == (5, 4, 7)


@given(arrays(bool, SHAPE), arrays(bool, SHAPE), seeds)
def test_border_clicks_are_at_the_border_of_an_error(truth, mask, seed):
    assume((truth != mask).any())
    click = one_click(truth, mask, Policy.BORDER, np.random.default_rng(seed), spacing_mm=(1.0, 1.0, 1.0))
    assert click is not None
    depth = error_depth_mm(torch.from_numpy(truth)[None], torch.from_numpy(mask)[None], (1.0, 1.0, 1.0))[0]
    assert 0 < depth[click.index] <= BORDER_DEPTH_VOXELS


def clicked_depths(policy):
    """How deep 600 clicks lie in a missed slab of 7 voxels, whose only depths are 1, 2, 3 and 4 voxels."""
    truth = torch.zeros(1, 9, 20, 20, dtype=torch.bool)
    truth[:, 1:8] = True
    batch = truth.expand(600, -1, -1, -1)
    generators = [np.random.default_rng(patch) for patch in range(600)]
    clicks = next_clicks(
        batch, torch.zeros_like(batch), [[]] * 600, [policy] * 600, [0.0] * 600, generators, (1.0, 50.0, 50.0)
    )
    return Counter(min(click.index[0], 8 - click.index[0]) for click in clicks if click is not None)


def test_in_the_middle_is_the_likelier_the_deeper():
    """Two planes each of depths 1, 2 and 3 and one of depth 4: chances of 2, 4, 6 and 4 in 16."""
    depths = clicked_depths(Policy.MIDDLE)
    for depth, chance in ((1, 2 / 16), (2, 4 / 16), (3, 6 / 16), (4, 4 / 16)):
        assert depths[depth] / 600 == pytest.approx(chance, abs=0.06)


def test_inside_all_voxels_are_alike():
    depths = clicked_depths(Policy.INSIDE)
    for depth, chance in ((1, 2 / 7), (2, 2 / 7), (3, 2 / 7), (4, 1 / 7)):
        assert depths[depth] / 600 == pytest.approx(chance, abs=0.06)


@given(arrays(bool, SHAPE), arrays(bool, SHAPE), seeds)
def test_displaced_clicks_stay_in_the_array(truth, mask, seed):
    assume((truth != mask).any())
    click = one_click(truth, mask, Policy.DISPLACED, np.random.default_rng(seed))
    assert click is not None
    assert all(0 <= position < extent for position, extent in zip(click.index, SHAPE, strict=True))


def test_displaced_clicks_miss_the_deepest_voxel_by_a_gaussian_of_the_hands_own_width():
    """A cube has one deepest voxel: how far the click lies from it is the hand alone."""
    truth = torch.zeros(1, 61, 61, 61, dtype=torch.bool)
    truth[:, 27:34, 27:34, 27:34] = True
    batch = truth.expand(300, -1, -1, -1)
    generators = [np.random.default_rng(patch) for patch in range(300)]
    miss_voxels = [2.0] * 150 + [5.0] * 150
    policies = [Policy.DISPLACED] * 300
    clicks = next_clicks(batch, torch.zeros_like(batch), [[]] * 300, policies, miss_voxels, generators, (1.0,) * 3)
    # The sign is that of what was meant, wherever the hand comes down.
    assert all(click is not None and click.is_positive for click in clicks)
    offsets = np.array([click.index for click in clicks if click is not None]) - 30
    for width, some in ((2.0, offsets[:150]), (5.0, offsets[150:])):
        assert np.allclose(some.mean(axis=0), 0, atol=0.25 * width)
        assert np.allclose(some.std(axis=0), width, rtol=0.2)


def test_a_displaced_click_that_would_hit_a_clicked_voxel_stays_where_it_was_meant():
    """All voxels but one carry a click: whatever the hand does, that one is left."""
    truth = np.ones((3, 3, 3), dtype=bool)
    clicked = [(i, j, k) for i, j, k in np.ndindex(3, 3, 3) if (i, j, k) != (1, 2, 0)]
    for seed in range(20):
        click = one_click(truth, ~truth, Policy.DISPLACED, np.random.default_rng(seed), clicked)
        assert click is not None
        assert click.index == (1, 2, 0)


class TestPolicyMix:
    def test_policies_are_drawn_by_their_shares(self):
        mix = PolicyMix(deepest=2.0, middle=1.0, inside=0.5, border=0.0, displaced=0.5)
        generator = np.random.default_rng(0)
        drawn = Counter(mix.draw(generator) for _ in range(2000))
        assert drawn[Policy.BORDER] == 0
        for policy, share in ((Policy.DEEPEST, 0.5), (Policy.MIDDLE, 0.25), (Policy.INSIDE, 0.125)):
            assert drawn[policy] / 2000 == pytest.approx(share, abs=0.04)

    @given(st.sampled_from(Policy), seeds)
    def test_one_without_others_is_always_drawn(self, policy, seed):
        shares = {other.name.lower(): float(other is policy) for other in Policy}
        assert PolicyMix(**shares).draw(np.random.default_rng(seed)) is policy

    @pytest.mark.parametrize("shares", [(0, 0, 0, 0, 0), (1, 1, 1, 1, -1), (float("nan"), 1, 1, 1, 1)])
    def test_shares_that_nothing_can_be_drawn_by_are_refused(self, shares):
        with pytest.raises(InvalidRequest, match="policies' shares"):
            PolicyMix(*shares)
