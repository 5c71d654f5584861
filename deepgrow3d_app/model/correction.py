"""What a correcting click may change: all that it asked for, and little else.

A network answers every click anew, and a new answer that is right where it was asked is now and then wrong where it had
been right before. But people click where the mask is wrong most: whoever adds a little has not overlooked that most of
the rest should go. So what an answer takes away, when more was asked for, comes in parts that are not much larger than
what it adds there, and the other way round; larger parts stay as they were.

From some clicks on, only that is taken over which hangs together with a click that the mask before contradicted: the
progressive merge of FocalClick (Chen et al., CVPR 2022), with added and removed voxels looked at apart. Early answers
may change more: the structure is still being found.
"""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
import numpy.typing as npt

from deepgrow3d_app.volume.boxed_mask import Box, bounding_box, relative

LATE_CLICKS = 6
"""From so many clicks on, nothing else changes."""

OPPOSITE = 3
"""Before that, a part that changes the other way has at most so many voxels for each that was asked for."""

Region = npt.NDArray[np.bool_]


def corrected(before: Region, now: Region, foreground: Sequence[Box], background: Sequence[Box]) -> Region:
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
    added, removed = now & ~before, before & ~now
    if len(foreground) + len(background) >= LATE_CLICKS:
        added, removed = _touching(added, missed), _touching(removed, exceeded)
    elif not missed:
        added = _in_small_parts(added, OPPOSITE * int(np.count_nonzero(_touching(removed, exceeded))))
    elif not exceeded:
        removed = _in_small_parts(removed, OPPOSITE * int(np.count_nonzero(_touching(added, missed))))
    return (before | added) & ~removed


def _touching(change: Region, voxels: Sequence[Box]) -> Region:
    """Of ``change``, what hangs together with one of ``voxels`` or a neighbour of it."""
    box = bounding_box(change) if voxels else None
    if box is None:
        return np.zeros_like(change)
    parts = _parts(change[box])
    is_wanted = np.zeros(int(parts.max()) + 1, np.bool_)
    for voxel in voxels:
        i, j, k = (slice(max(0, at.start - 1), max(0, at.stop + 1)) for at in relative(voxel, box))
        is_wanted[parts[i, j, k]] = True
    return _of_parts(change, box, is_wanted[parts[change[box]]])


def _in_small_parts(change: Region, most_voxels: int) -> Region:
    """Of ``change``, what hangs together in parts of at most so many voxels."""
    box = bounding_box(change)
    if box is None or np.count_nonzero(change) <= most_voxels:
        return change
    numbers = _parts(change[box])[change[box]]
    return _of_parts(change, box, (np.bincount(numbers) <= most_voxels)[numbers])


def _parts(region: Region) -> npt.NDArray[np.unsignedinteger]:
    """The parts that hang together by any of 26 neighbours, numbered from 1; 0 elsewhere."""
    # As bytes: of bool arrays, cc3d 4.1 underestimates how many parts a row of voxels can have, and raises.
    parts: npt.NDArray[np.unsignedinteger] = cc3d.connected_components(region.view(np.uint8), connectivity=26)
    return parts


def _of_parts(change: Region, box: Box, is_kept: Region) -> Region:
    """Those voxels of ``change``, all of them in ``box``, that are kept: bool, in their order."""
    kept = np.zeros_like(change)
    kept[box][change[box]] = is_kept
    return kept
