"""What a wrong mask costs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

SMOOTHING = 1.0


def dice_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice loss plus binary cross-entropy, each averaged over the batch.

    Dice is indifferent to a structure's size but blind far from its border; cross-entropy is neither.

    Args:
        logits: float (batch, i, j, k).
        truth: bool, same shape; no sample is empty.

    Returns:
        A scalar; 0 for a perfect and certain mask.
    """
    target = truth.float()
    probability = logits.float().sigmoid()
    overlap = (probability * target).sum(dim=(1, 2, 3))
    total = probability.sum(dim=(1, 2, 3)) + target.sum(dim=(1, 2, 3))
    dice = (2 * overlap + SMOOTHING) / (total + SMOOTHING)
    # Normalised by the structure's size, or the many background voxels of a small one outvote it.
    share = target.mean(dim=(1, 2, 3)).clamp(min=1e-3)
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(dim=(1, 2, 3))
    return (1 - dice).mean() + (entropy / share.sqrt()).mean()
