"""What a correcting click may change: all that it asked for, and less and less else.

A network answers every click anew, and a new answer that is right where it was asked is now and then wrong where it had
been right before. But people click where the mask is wrong most: whoever adds a little has not overlooked that most of
the rest should go. So what an answer takes away, when more was asked for, comes in parts that are not much larger than
what it adds there, and the other way round; larger parts stay as they were.

From some clicks on, only that is taken over which hangs together with a click that the mask before contradicted: the
progressive merge of FocalClick (Chen et al., CVPR 2022), with added and removed voxels looked at apart. Early answers
may change more: the structure is still being found.

A click that the mask before agreed with has missed the error that it meant, as hands do, by a few millimetres: it asks
for the parts that change its way and begin so near to it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import cc3d
import numpy as np
import numpy.typing as npt

from deepgrow3d_app.volume.boxed_mask import Box, bounding_box, relative
from deepgrow3d_app.volume.geometry import Spacing

LATE_CLICKS = 6
"""From so many clicks on, nothing changes that was not asked for."""

OPPOSITE = 3
"""Before that, a part that changes the other way has at most so many voxels for each that was asked for.

What changes the same way elsewhere is taken over: the structure goes on, or so does what does not belong to it.
"""

MISS_MM = 12.0
"""Along each axis: three times what the noisy user of the evaluation misses by."""

Region = npt.NDArray[np.bool_]
Margin = tuple[int, int, int]
NEIGHBOURS: Margin = (1, 1, 1)


def corrected(
    before: Region,
    now: Region,
    foreground: Sequence[Box],
    background: Sequence[Box],
    latest: Collection[Box],
    spacing_mm: Spacing,
) -> Region:
    """``now``, but for changes since ``before`` that no click asked for.

    Args:
        before: bool (i, j, k), the mask before the latest click.
        now: the network's answer, of the same shape.
        foreground, background: the clicked voxels, as boxes of one voxel.
        latest: those of them that are new; none where that is not known.
        spacing_mm: of the voxels.

    Returns:
        bool (i, j, k), a new array; ``now`` where ``before`` contradicts no click and none is known to be new, so that
        nothing says where to look.
    """
    missed = [voxel for voxel in foreground if not before[voxel].all()]
    exceeded = [voxel for voxel in background if before[voxel].any()]
    margin = NEIGHBOURS
    if not missed and not exceeded:
        missed, exceeded = ([voxel for voxel in some if voxel in latest] for some in (foreground, background))
        if not missed and not exceeded:
            return now.copy()
        i, j, k = (math.ceil(MISS_MM / step) for step in spacing_mm)
        margin = (i, j, k)
    added, removed = now & ~before, before & ~now
    if len(foreground) + len(background) >= LATE_CLICKS:
        added, removed = _near(added, missed, margin), _near(removed, exceeded, margin)
    elif not missed:
        added = _in_small_parts(added, OPPOSITE * int(np.count_nonzero(_near(removed, exceeded, margin))))
    elif not exceeded:
        removed = _in_small_parts(removed, OPPOSITE * int(np.count_nonzero(_near(added, missed, margin))))
    return (before | added) & ~removed


def _near(change: Region, voxels: Sequence[Box], margin: Margin) -> Region:
    """Of ``change``, what hangs together with a voxel that is at most ``margin`` from one of ``voxels``."""
    box = bounding_box(change) if voxels else None
    if box is None:
        return np.zeros_like(change)
    parts = _parts(change[box])
    is_wanted = np.zeros(int(parts.max()) + 1, np.bool_)
    for voxel in voxels:
        i, j, k = (
            slice(max(0, at.start - reach), max(0, at.stop + reach))
            for at, reach in zip(relative(voxel, box), margin, strict=True)
        )
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
    # As bytes: of bool arrays, cc3d 4.1 underestimates how many parts a row of voxels can have, and raises. A copy: it
    # takes the voxels of some views of larger arrays for others.
    voxels = region.astype(np.uint8)
    parts: npt.NDArray[np.unsignedinteger] = cc3d.connected_components(voxels, connectivity=26)
    return parts


def _of_parts(change: Region, box: Box, is_kept: Region) -> Region:
    """Those voxels of ``change``, all of them in ``box``, that are kept: bool, in their order."""
    kept = np.zeros_like(change)
    kept[box][change[box]] = is_kept
    return kept
