"""Annotators of many patches at once, on the device that the patches lie on: the simulator that trains the network.

Masks and truths never leave the device. What comes back of each patch is one voxel and its sign: four numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import Enum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.depth import error_depth_mm, kinds_depth_mm
from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.volume.geometry import Index, Spacing

BORDER_DEPTH_VOXELS = 1.5

Place = tuple[Index, bool]
"""A voxel, and the truth there."""

Array = TypeVar("Array", Tensor, npt.NDArray[Any])


class Policy(Enum):
    """How an annotator chooses among the voxels of the errors.

    Attributes:
        DEEPEST: of all errors, the voxel that is farthest from its error's border.
        MIDDLE: any, the deeper the likelier; so large errors are likelier than small ones.
        INSIDE: any, all alike.
        BORDER: one at the border of its error.
        DISPLACED: as ``DEEPEST``, and then he misses, even to the other side of the structure's border.
    """

    DEEPEST = 0
    MIDDLE = 1
    INSIDE = 2
    BORDER = 3
    DISPLACED = 4


@dataclass(frozen=True, slots=True)
class PolicyMix:
    """How many annotators follow each policy, as shares; they need not add up to 1.

    Raises:
        InvalidRequest: a share is negative, or all are 0.
    """

    deepest: float = 0.35
    middle: float = 0.2
    inside: float = 0.05
    border: float = 0.05
    displaced: float = 0.35

    def __post_init__(self) -> None:
        shares = astuple(self)
        if min(shares) < 0 or not 0 < sum(shares) < math.inf:
            raise InvalidRequest(f"The policies' shares are {shares}. Choose positive numbers, or 0 for some of them.")

    def draw(self, generator: np.random.Generator) -> Policy:
        """The policy of one annotator."""
        shares = np.array(astuple(self))
        return list(Policy)[int(generator.choice(shares.size, p=shares / shares.sum()))]


def next_clicks(
    truths: Tensor,
    masks: Tensor,
    clicked: Sequence[Sequence[Index]],
    policies: Sequence[Policy],
    miss_voxels: Sequence[float],
    generators: Sequence[np.random.Generator],
    spacing_mm: Spacing,
) -> list[Click | None]:
    """The next click on each of n patches, where its mask is wrong: foreground where the truth is missed.

    Args:
        truths, masks: bool (n, i, j, k) on one device.
        clicked: for each patch, the voxels that carry a click. None of them is returned, and they count as
            corrected: a new click keeps its distance from an earlier one that was in vain.
        policies: for each patch, how to choose.
        miss_voxels: for each patch, the standard deviation along each axis by which a ``DISPLACED`` click misses.
        generators: for each patch, the source of its randomness: no patch depends on which others it is with.
        spacing_mm: voxel edges; only their ratios matter.

    Returns:
        For each patch a click, or ``None`` where nothing is left to correct.
    """
    corrected = masks
    if any(clicked):
        corrected = masks.clone()
        known = [(patch, *voxel) for patch, voxels in enumerate(clicked) for voxel in voxels]
        at = torch.tensor(known, device=masks.device).unbind(dim=1)
        corrected[at] = truths[at]
    chances = [generator.random() for generator in generators]
    if truths.device.type == "cpu":
        arrays = zip(truths.numpy(), corrected.numpy(), policies, chances, strict=True)
        places = [_place(*of_patch, spacing_mm) for of_patch in arrays]
    else:
        places = _places(truths, corrected, policies, chances, spacing_mm)
    return [
        _click(place, truths.shape[1:], miss if policy is Policy.DISPLACED else 0.0, set(voxels), generator)
        for place, policy, miss, voxels, generator in zip(
            places, policies, miss_voxels, clicked, generators, strict=True
        )
    ]


def _place(
    truth: npt.NDArray[np.bool_], mask: npt.NDArray[np.bool_], policy: Policy, chance: float, spacing_mm: Spacing
) -> Place | None:
    """Where the click on one patch is meant. On a CPU: there NumPy's calls cost least."""
    wrong = (truth ^ mask).view(np.uint8)
    box = _box(wrong.reshape(len(wrong), -1).max(axis=1), np.bitwise_or.reduce(wrong, axis=0))
    if box is None:
        return None
    depth = kinds_depth_mm(wrong[box] << mask[box].view(np.uint8), spacing_mm)
    weights = _weights(depth, policy, max(spacing_mm)).reshape(len(depth), -1)
    # The plane first and then the voxel in it, by the same number: cheaper than all sums along the array.
    planes = weights.sum(axis=1, dtype=np.float64).cumsum()
    wanted = min(chance * planes[-1], np.nextafter(planes[-1], 0))
    plane = int(planes.searchsorted(wanted, side="right"))
    sums = weights[plane].cumsum(dtype=np.float64)
    wanted -= planes[plane - 1] if plane > 0 else 0.0
    j, k = divmod(int(sums.searchsorted(min(wanted, np.nextafter(sums[-1], 0)), side="right")), depth.shape[2])
    index = (plane + box[0].start, j + box[1].start, k + box[2].start)
    return index, bool(truth[index])


def _places(
    truths: Tensor, masks: Tensor, policies: Sequence[Policy], chances: Sequence[float], spacing_mm: Spacing
) -> list[Place | None]:
    """The same on a GPU, for all patches at once: there, calls cost more than voxels, and every answer is a wait."""
    wrong = (truths ^ masks).view(torch.uint8).amax(dim=0)
    box = _box(wrong.flatten(1).amax(dim=1).cpu().numpy(), wrong.amax(dim=0).cpu().numpy())
    if box is None:
        return [None] * len(policies)
    truths, masks = truths[(slice(None), *box)], masks[(slice(None), *box)]
    depth = error_depth_mm(truths, masks, spacing_mm)
    edge = max(spacing_mm)
    weights = torch.stack([_weights(of_patch, policy, edge) for of_patch, policy in zip(depth, policies, strict=True)])
    sums = weights.flatten(1).cumsum(dim=1, dtype=torch.float64)
    totals = sums[:, -1:]
    wanted = torch.tensor(chances, dtype=torch.float64, device=sums.device)[:, None] * totals
    chosen = torch.searchsorted(sums, wanted, right=True).clamp(max=sums.shape[1] - 1)
    is_possible, signs = (part.flatten(1).gather(1, chosen) for part in (depth > 0, truths))
    answers = torch.cat((is_possible, signs, *torch.unravel_index(chosen, depth.shape[1:])), dim=1).tolist()
    return [
        ((i + box[0].start, j + box[1].start, k + box[2].start), bool(sign)) if possible else None
        for possible, sign, i, j, k in answers
    ]


def _weights(depth: Array, policy: Policy, edge: float) -> Array:
    """How likely each voxel (i, j, k) of a patch with an error is, up to a factor."""
    weights: Array = depth
    if policy in (Policy.DEEPEST, Policy.DISPLACED):
        weights = depth == depth.max()
    elif policy is Policy.INSIDE:
        weights = depth > 0
    elif policy is Policy.BORDER:
        weights = (depth > 0) & (depth <= BORDER_DEPTH_VOXELS * edge)
    return weights


def _click(
    place: Place | None,
    shape: Sequence[int],
    miss_voxels: float,
    taken: set[Index],
    generator: np.random.Generator,
) -> Click | None:
    if place is None:
        return None
    (i, j, k), sign = place
    if miss_voxels > 0:
        missed = np.rint(np.array([i, j, k]) + generator.normal(0.0, miss_voxels, 3)).astype(int)
        di, dj, dk = (min(max(int(p), 0), extent - 1) for p, extent in zip(missed, shape, strict=True))
        i, j, k = (i, j, k) if (di, dj, dk) in taken else (di, dj, dk)
    return Click((i, j, k), is_positive=sign)


def _box(along_i: npt.NDArray[np.uint8], plane: npt.NDArray[np.uint8]) -> tuple[slice, slice, slice] | None:
    """What holds every error, by what is not 0 in projections of the errors: along i, and on the plane (j, k)."""
    extents = []
    for along in (along_i, plane.max(axis=1), plane.max(axis=0)):
        occupied = along.nonzero()[0]
        if occupied.size == 0:
            return None
        extents.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return extents[0], extents[1], extents[2]
