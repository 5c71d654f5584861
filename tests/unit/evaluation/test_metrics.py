"""Scores by hand, and against programs that others wrote: MONAI, SimpleITK and DeepMind's surface-distance."""

import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
import surface_distance
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_dice, compute_surface_dice

from deepgrow3d_app.evaluation.metrics import (
    MaskScores,
    Reference,
    dice,
    hausdorff95_mm,
    percentile_mm,
    surface_dice,
)

masks = arrays(bool, (5, 6, 4))
some = masks.filter(np.any)
spacings = st.tuples(*(st.sampled_from([0.5, 0.8, 1.0, 2.5, 5.0]),) * 3)
tolerances = st.sampled_from([0.0, 0.7, 1.0, 2.0, 3.0])


def box(shape, low, high):
    region = np.zeros(shape, dtype=bool)
    region[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return region


def test_dice_by_hand():
    mask, truth = np.zeros((2, 8, 8, 8), dtype=np.uint8)
    mask[0:4, 0, 0] = 1
    truth[2:8, 0, 0] = 1
    assert dice(mask, truth) == pytest.approx(2 * 2 / (4 + 6))


def test_label_values_do_not_matter_and_empty_masks_agree():
    mask = np.zeros((3, 3, 3), dtype=np.uint8)
    assert dice(mask, mask) == 1
    mask[1, 1, 1] = 1
    assert dice(mask * 7, mask) == 1
    assert dice(mask, np.zeros_like(mask)) == 0


def test_masks_on_two_grids_are_not_compared():
    for compare in (dice, lambda a, b: Reference(b, (1.0, 1.0, 1.0)).score(a)):
        with pytest.raises(ValueError, match="one grid"):
            compare(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)))


def test_a_shifted_cube_by_hand():
    """A cube of 4 voxels of 1 mm and the same cube moved by 2 voxels along i, on 8 x 8 x 8.

    Overlap: 32 of 64 voxels, Dice 2 * 32 / (64 + 64). On the lattice of corners the truth's surface elements have
    i from 2 to 6, the answer's from 4 to 8, both with j and k from 2 to 6. The truth's face i = 2 is 2 mm from the
    answer's face i = 4, and no element of the truth is farther away; likewise the answer's face i = 8. So at 2 mm
    everything agrees, at 1.5 mm those two faces do not, and either is more than 5 % of its surface: HD95 2 mm.
    """
    truth, mask = box((8, 8, 8), (2, 2, 2), (6, 6, 6)), box((8, 8, 8), (4, 2, 2), (8, 6, 6))
    assert Reference(truth, (1.0, 1.0, 1.0), 2.0).score(mask) == MaskScores(0.5, 1.0, 2.0)
    assert 0 < surface_dice(mask, truth, (1.0, 1.0, 1.0), 1.5) < 1
    # Twice the spacing, twice the distance; Dice knows nothing of millimetres.
    assert Reference(truth, (2.0, 1.0, 1.0), 2.0).score(mask).dice == 0.5
    assert hausdorff95_mm(mask, truth, (2.0, 2.0, 2.0)) == 4.0


def test_one_voxel_beside_another_by_hand():
    """Two single voxels 3 apart along k, of 1 x 1 x 2 mm: every element is 6 mm from its counterpart, or 4 mm.

    A voxel's surface has the 8 corners around it, at k and k + 1. Those of the other are at k + 3 and k + 4: the
    upper four corners are 2 steps (4 mm) from it, the lower four 3 steps (6 mm). All eight have equal areas.
    """
    truth, mask = box((3, 3, 8), (1, 1, 1), (2, 2, 2)), box((3, 3, 8), (1, 1, 4), (2, 2, 5))
    scores = Reference(truth, (1.0, 1.0, 2.0), 4.0).score(mask)
    assert scores == MaskScores(0.0, 0.5, 6.0)
    assert surface_dice(mask, truth, (1.0, 1.0, 2.0), 3.9) == 0


def test_percentiles_are_weighted_by_area():
    assert percentile_mm(np.array([3.0, 1.0, 2.0]), np.array([1.0, 18.0, 1.0])) == 2.0
    assert percentile_mm(np.array([3.0, 1.0, 2.0]), np.array([1.0, 97.0, 2.0])) == 1.0
    assert percentile_mm(np.array([1.0, 9.0]), np.array([1.0, 1.0])) == 9.0


def test_empty_masks():
    nothing, something = np.zeros((4, 4, 4), bool), box((4, 4, 4), (1, 1, 1), (3, 3, 3))
    assert Reference(nothing, (1.0, 1.0, 1.0)).score(nothing) == MaskScores(1, 1, 0)
    assert Reference(nothing, (1.0, 1.0, 1.0)).score(something) == MaskScores(0, 0, math.inf)
    assert Reference(something, (1.0, 1.0, 1.0)).score(nothing) == MaskScores(0, 0, math.inf)


@given(some, some, spacings, tolerances)
def test_surfaces_agree_with_deepmind(truth, mask, spacing_mm, tolerance_mm):
    distances = surface_distance.compute_surface_distances(truth, mask, spacing_mm)
    scores = Reference(truth, spacing_mm, tolerance_mm).score(mask)
    assert scores.dice == pytest.approx(surface_distance.compute_dice_coefficient(truth, mask))
    # Both tolerances: whether a distance that equals the tolerance counts is a matter of rounding there.
    expected = [
        surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm * factor)
        for factor in (1 - 1e-5, 1 + 1e-5)
    ]
    assert min(expected) - 1e-5 <= scores.nsd <= max(expected) + 1e-5
    assert scores.nsd == pytest.approx(expected[1], abs=1e-5)
    # A percentile may fall on a step of the cumulated areas, where rounding picks either side.
    hd = [surface_distance.compute_robust_hausdorff(distances, percent) for percent in (95 - 1e-6, 95 + 1e-6)]
    assert min(hd) - 1e-4 <= scores.hd95_mm <= max(hd) + 1e-4


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI's, of its own arguments
@given(some, some, spacings, st.sampled_from([0.7, 1.3, 2.1]))
def test_surfaces_agree_with_monai(truth, mask, spacing_mm, tolerance_mm):
    # MONAI leaves out elements on the border of the grid, so it gets a grid with one voxel more all around.
    ours, theirs = (torch.from_numpy(np.pad(region, 1))[None, None] for region in (mask, truth))
    nsd = compute_surface_dice(ours, theirs, [tolerance_mm], True, spacing=spacing_mm, use_subvoxels=True)
    scores = Reference(truth, spacing_mm, tolerance_mm).score(mask)
    assert scores.nsd == pytest.approx(float(nsd), abs=1e-5)
    assert scores.dice == pytest.approx(float(compute_dice(ours, theirs, True)), abs=1e-6)


@given(some, some, spacings)
def test_dice_and_the_bound_of_the_distance_agree_with_simpleitk(truth, mask, spacing_mm):
    images = [sitk.GetImageFromArray(np.pad(region, 1).astype(np.uint8).T) for region in (truth, mask)]
    for image in images:
        image.SetSpacing(spacing_mm)
    overlap, hausdorff = sitk.LabelOverlapMeasuresImageFilter(), sitk.HausdorffDistanceImageFilter()
    overlap.Execute(*images)
    hausdorff.Execute(*images)
    scores = Reference(truth, spacing_mm).score(mask)
    assert scores.dice == pytest.approx(overlap.GetDiceCoefficient())
    # ITK measures from voxel middles, we from voxel corners: they differ by at most a voxel's diagonal.
    assert scores.hd95_mm <= hausdorff.GetHausdorffDistance() + float(np.linalg.norm(spacing_mm)) + 1e-5


@given(some, some, spacings)
def test_scores_do_not_depend_on_axis_order_flips_or_memory_order(truth, mask, spacing_mm):
    expected = Reference(truth, spacing_mm).score(mask)
    for axes in itertools.permutations(range(3)):
        turned = [np.flip(region.transpose(axes), 0) for region in (truth, mask)]
        scores = Reference(turned[0], tuple(spacing_mm[axis] for axis in axes)).score(turned[1])
        assert scores.dice == expected.dice
        assert scores.nsd == pytest.approx(expected.nsd, abs=1e-6)
        # Equal areas are added up in another order: a percentile on a step may take either side.
        assert scores.hd95_mm <= percentile_bound(truth, mask, spacing_mm) + 1e-4
    fortran = Reference(np.asfortranarray(truth), spacing_mm).score(np.asfortranarray(mask.astype(np.uint8)))
    assert fortran.dice == expected.dice
    assert fortran.nsd == pytest.approx(expected.nsd, abs=1e-6)


def percentile_bound(truth, mask, spacing_mm):
    distances = surface_distance.compute_surface_distances(truth, mask, spacing_mm)
    return float(surface_distance.compute_robust_hausdorff(distances, 95 + 1e-6))


@given(some, st.lists(masks, min_size=2, max_size=4), spacings)
def test_a_reference_scores_many_masks_as_if_each_were_the_first(truth, answers, spacing_mm):
    reference = Reference(truth, spacing_mm)
    for mask in answers:
        assert reference.score(mask) == Reference(truth, spacing_mm).score(mask)
