import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.model.tissue import (
    INTENSITIES,
    MAX_LOG_RATIO,
    PRIOR_VOXELS,
    REACH,
    SURE_LOGIT,
    WEIGHT,
    judged_by_tissue,
)

SHAPE = (24, 24, 24)
ORGAN, FAT = 0.5, -0.5
EVERYWHERE = torch.ones(SHAPE, dtype=torch.bool)
SPECK = (slice(17, 21), slice(4, 8), slice(4, 8))
HOLE = (slice(2, 6), slice(4, 8), slice(4, 8))


def _organ():
    """Image and logits: an organ for i < 12, fat beyond; the network is sure but for the two slices on either side."""
    image = torch.full(SHAPE, FAT)
    image[:12] = ORGAN
    logits = torch.full(SHAPE, -4.0)
    logits[:12] = 4.0
    logits[10:14] = 0.1
    return image, logits


def _organ_with_lookalikes():
    """The same with some organ in the fat and some fat in the organ. There, the network is unsure and draws neither."""
    image, logits = _organ()
    image[SPECK], logits[SPECK] = ORGAN, -0.1
    image[HOLE], logits[HOLE] = FAT, 0.1
    return image, logits


def test_doubtful_voxels_go_to_the_side_that_they_look_like_and_sure_ones_stay():
    image, logits = _organ()
    judged = judged_by_tissue(logits, image, EVERYWHERE)
    assert torch.equal(judged > 0, image == ORGAN)
    is_sure = logits.abs() >= SURE_LOGIT
    assert torch.equal(judged[is_sure], logits[is_sure])


def test_tissues_that_share_no_intensity_count_as_much_as_any_can():
    image, logits = _organ()
    judged = judged_by_tissue(logits, image, EVERYWHERE)
    assert torch.allclose(judged[10], torch.tensor(0.1 + WEIGHT * MAX_LOG_RATIO))
    assert torch.allclose(judged[13], torch.tensor(0.1 - WEIGHT * MAX_LOG_RATIO))
    # At the border, of three slices of neighbours two say the one and one says the other.
    assert torch.allclose(judged[11], torch.tensor(0.1 + WEIGHT * MAX_LOG_RATIO / 3))
    assert torch.allclose(judged[12], torch.tensor(0.1 - WEIGHT * MAX_LOG_RATIO / 3))


def test_the_evidence_is_the_ratio_of_the_two_shares():
    """Both sides have organ and fat: inside 3 of 4 voxels are organ, beside it 1 of 4."""
    image = torch.full(SHAPE, FAT)
    image[:, :, :6] = ORGAN
    image[:12, :, :18] = ORGAN
    logits = torch.full(SHAPE, -2.0)
    logits[:12] = 2.0
    logits[11:13] = 0.1
    inside = 11 * 24 * 24
    beside = 7 * 24 * 24  # slices 13 to 19: REACH beyond 12 and its pair
    prior = PRIOR_VOXELS / 2  # of each intensity, for the two together have as much of either
    ratio = (0.75 * inside + prior) / (inside + PRIOR_VOXELS) / ((0.25 * beside + prior) / (beside + PRIOR_VOXELS))
    judged = judged_by_tissue(logits, image, EVERYWHERE)
    assert judged[11, 0, 0].item() == pytest.approx(0.1 + WEIGHT * math.log(ratio), abs=1e-3)


def test_an_image_without_contrast_says_nothing():
    _, logits = _organ()
    judged = judged_by_tissue(logits, torch.full(SHAPE, 0.3), EVERYWHERE)
    assert torch.allclose(judged, logits, atol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_where_one_side_is_nowhere_sure_there_is_nothing_to_compare(sign):
    image, logits = _organ()
    one_sided = torch.where(sign * logits >= SURE_LOGIT, 0.0, logits)
    assert judged_by_tissue(one_sided, image, EVERYWHERE) is one_sided


def test_what_lies_far_from_the_mask_is_not_what_it_borders_on():
    """Muscle as bright as the organ, ten voxels away: at the border, bright still means organ."""
    image, logits = _organ()
    far = image.clone()
    far[10 + 2 * REACH :] = ORGAN
    assert torch.equal(judged_by_tissue(logits, far, EVERYWHERE), judged_by_tissue(logits, image, EVERYWHERE))


def test_what_a_patch_is_filled_with_beyond_the_volume_is_no_tissue():
    image, logits = _organ()
    within = EVERYWHERE.clone()
    within[:, 12:] = False
    for fill in (FAT, ORGAN, -3.0):
        image[:, 12:] = fill
        judged = judged_by_tissue(logits, image, within)
        assert torch.equal(judged[:, :12] > 0, image[:, :12] == ORGAN), fill


def test_few_voxels_tell_less_than_many():
    image, logits = _organ()
    many = judged_by_tissue(logits, image, EVERYWHERE)
    few = torch.zeros(SHAPE, dtype=torch.bool)
    few[:, :2, :2] = True
    assert 0 < judged_by_tissue(logits, image, few)[10, 0, 0] < many[10, 0, 0]


@given(
    axes=st.permutations((0, 1, 2)),
    flipped=st.sets(st.sampled_from((0, 1, 2))),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_the_same_in_every_orientation(axes, flipped, seed):
    generator = torch.Generator().manual_seed(seed)
    image, logits = (torch.randn(12, 14, 16, generator=generator) * 2 for _ in range(2))
    within = torch.rand(12, 14, 16, generator=generator) < 0.8

    def turned(voxels):
        return voxels.permute(*axes).flip(sorted(flipped))

    expected = turned(judged_by_tissue(logits, image, within))
    assert torch.allclose(judged_by_tissue(turned(logits), turned(image), turned(within)), expected, atol=1e-5)


@given(low=st.floats(-100, 100), high=st.floats(-100, 100))
def test_intensities_beyond_the_bins_are_all_right(low, high):
    image, logits = _organ()
    image = torch.where(image == ORGAN, high, low)
    judged = judged_by_tissue(logits, image, EVERYWHERE)
    assert torch.isfinite(judged).all()
    if low <= INTENSITIES[0] and high <= INTENSITIES[0]:  # both in the outermost bin
        assert torch.allclose(judged, logits, atol=1e-6)


def test_tissue_begins_no_part_of_the_mask_and_no_hole_in_it():
    expected = _organ()[0] == ORGAN
    image, logits = _organ_with_lookalikes()
    assert torch.equal(judged_by_tissue(logits, image, EVERYWHERE) > 0, expected)


def test_tissue_enlarges_a_part_and_a_hole_that_the_network_drew():
    image, logits = _organ_with_lookalikes()
    logits[18, 5, 5], logits[4, 5, 5] = 0.1, -0.1
    judged = judged_by_tissue(logits, image, EVERYWHERE)
    assert (judged[18:20, 5:7, 5:7] > 0).all()
    assert (judged[3:5, 5:7, 5:7] < 0).all()


def test_a_single_voxel_that_looks_otherwise_is_noise():
    image, logits = _organ()
    image[10, 4, 4], image[13, 4, 4] = FAT, ORGAN
    judged = judged_by_tissue(logits, image, EVERYWHERE)
    assert judged[10, 4, 4] > 0
    assert judged[13, 4, 4] < 0


def test_beyond_the_volume_there_are_no_neighbours():
    image, logits = _organ()
    within = EVERYWHERE.clone()
    within[:, 12:] = False
    judged = judged_by_tissue(logits, image, within)
    assert torch.allclose(judged[10, :12], torch.tensor(0.1 + WEIGHT * MAX_LOG_RATIO))
