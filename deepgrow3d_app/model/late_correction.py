"""What a late click may change: its own surroundings.

A network answers every click anew, and after many clicks a new answer that is right where it was asked is now and then
wrong where it had been right before. So from some clicks on, of what changes, only that is taken over which hangs
together with a click that the mask before contradicted: the progressive merge of FocalClick (Chen et al., CVPR 2022),
with added and removed voxels looked at apart. Early answers may change everything: the structure is still being found.
"""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
import numpy.typing as npt

from deepgrow3d_app.volume.boxed_mask import Box, bounding_box, relative

LATE_CLICKS = 6
"""From so many clicks on."""

Region = npt.NDArray[np.bool_]


def merged(before: Region, now: Region, foreground: Sequence[Box], background: Sequence[Box]) -> Region:
    """``now``, but for changes since ``before`` that no contradicted click asked for.

    Args:
        before: bool (i, j, k), the mask before the latest click.
        now: the network's answer, of the same shape.
        foreground, background: the clicked voxels, as boxes of one voxel.

    Returns:
        bool (i, j, k), a new array; ``now`` where ``before`` contradicts no click, so that nothing says where to look.
    """
    missed = [voxel for voxel in foreground if not before[voxel].all()]
    exceeded = [voxel for voxel in background if before[voxel].any()]
    if not missed and not exceeded:
        return now.copy()
    after = before.copy()
    after |= _touching(now & ~before, missed)
    after &= ~_touching(before & ~now, exceeded)
    return after


def _touching(change: Region, voxels: Sequence[Box]) -> Region:
    """Of ``change``, what hangs together (26 neighbours) with one of ``voxels`` or a neighbour of it."""
    kept = np.zeros_like(change)
    box = bounding_box(change) if voxels else None
    if box is None:
        return kept
    # As bytes: of bool arrays, cc3d 4.1 underestimates how many parts a row of voxels can have, and raises.
    parts = cc3d.connected_components(change[box].astype(np.uint8), connectivity=26)
    wanted = set[int]()
    for voxel in voxels:
        i, j, k = (slice(max(0, at.start - 1), max(0, at.stop + 1)) for at in relative(voxel, box))
        wanted.update(np.unique(parts[i, j, k]).tolist())
    wanted.discard(0)
    kept[box] = np.isin(parts, sorted(wanted))
    return kept
