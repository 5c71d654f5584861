import math

import pytest
import torch

from deepgrow3d_app.training.loss import departure, dice_cross_entropy


def test_a_perfect_and_certain_mask_costs_nothing():
    truth = torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    truth[:, 1:3, 1:3, 1:3] = True
    assert dice_cross_entropy(torch.where(truth, 50.0, -50.0), truth).tolist() == pytest.approx([0, 0], abs=1e-5)


def test_by_hand_for_an_undecided_network():
    """Probability one half everywhere, half of the voxels inside: Dice (2 * 16 + 1) / (32 + 32 + 1)."""
    truth = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    truth[:, :2] = True
    expected = 1 - 33 / 65 + math.log(2) / math.sqrt(0.5)
    assert dice_cross_entropy(torch.zeros(1, 4, 4, 4), truth).tolist() == pytest.approx([expected])


def test_the_gradient_points_towards_the_truth():
    truth = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    truth[0, 1, 1, 1] = True
    logits = torch.zeros(1, 4, 4, 4, requires_grad=True)
    dice_cross_entropy(logits, truth).backward()
    assert logits.grad is not None
    assert ((logits.grad < 0) == truth).all()


def test_the_same_answers_depart_by_nothing_and_have_no_gradient():
    earlier = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    logits = earlier.clone().requires_grad_()
    cost = departure(logits, earlier)
    cost.sum().backward()
    assert cost.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-7


def test_a_departure_by_hand():
    """From 1/2 to 3/4 in every voxel: the divergence log(1/2 / sqrt(3/4 * 1/4)), over the root of the share 1/2."""
    expected = math.log(0.5 / math.sqrt(3 / 16)) / math.sqrt(0.5)
    cost = departure(torch.full((1, 2, 2, 2), math.log(3)), torch.zeros(1, 2, 2, 2))
    assert cost.tolist() == pytest.approx([expected])
