"""What a wrong mask costs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

SMOOTHING = 1.0


def dice_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice loss plus binary cross-entropy of each patch.

    Dice is indifferent to a structure's size but blind far from its border; cross-entropy is neither.

    Args:
        logits: float (batch, i, j, k).
        truth: bool, same shape; no sample is empty.

    Returns:
        float32 (batch,); 0 for a perfect and certain mask.
    """
    target = truth.float()
    probability = logits.float().sigmoid()
    overlap = (probability * target).sum(dim=(1, 2, 3))
    total = probability.sum(dim=(1, 2, 3)) + target.sum(dim=(1, 2, 3))
    dice = (2 * overlap + SMOOTHING) / (total + SMOOTHING)
    # Normalised by the structure's size, or the many background voxels of a small one outvote it.
    share = target.mean(dim=(1, 2, 3)).clamp(min=1e-3)
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(dim=(1, 2, 3))
    return (1 - dice) + entropy / share.sqrt()


def departure(logits: Tensor, earlier: Tensor) -> Tensor:
    """How far the answers depart from those of an earlier network, patch by patch.

    The divergence of Kullback and Leibler, normalised by the structure's size as the cross-entropy above (Li and Hoiem,
    "Learning without forgetting", PAMI 2018). Unlike the loss of a label, it has no gradient where nothing was
    forgotten: it keeps a network where it is, and does not draw it towards the few cases that are replayed.

    Args:
        logits: float (batch, i, j, k).
        earlier: those of the earlier network on the same inputs.

    Returns:
        float32 (batch,); 0 where both answers are the same.
    """
    target = earlier.float().sigmoid()
    share = target.mean(dim=(1, 2, 3)).clamp(min=1e-3)
    now, least = (
        functional.binary_cross_entropy_with_logits(one.float(), target, reduction="none").mean(dim=(1, 2, 3))
        for one in (logits, earlier)
    )
    return (now - least) / share.sqrt()
