"""What an annotator says: this voxel is inside, this one is outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deepgrow3d_app.errors import ClickOutsideVolume, ContradictoryClicks, NoForegroundClick
from deepgrow3d_app.volume.geometry import Index


@dataclass(frozen=True, slots=True)
class Click:
    """One voxel of the stored image and its side of the border.

    Attributes:
        index: voxel (i, j, k) of the stored image, in the axis order of the file.
        is_positive: ``True`` for a foreground click (inside), ``False`` for a background click.
    """

    index: Index
    is_positive: bool = True


def checked_clicks(clicks: Iterable[Click], shape: Sequence[int]) -> tuple[Click, ...]:
    """The same clicks without repetitions, in order, all of them meaningful on a volume of ``shape``.

    Raises:
        ClickOutsideVolume: a click is negative or beyond ``shape`` on some axis.
        ContradictoryClicks: one voxel carries both signs.
        NoForegroundClick: nothing says where the structure is.
    """
    unique = dict.fromkeys(clicks)
    for click in unique:
        if not all(0 <= position < extent for position, extent in zip(click.index, shape, strict=True)):
            raise ClickOutsideVolume(click.index, shape)
        if Click(click.index, not click.is_positive) in unique:
            raise ContradictoryClicks(click.index)
    if not any(click.is_positive for click in unique):
        raise NoForegroundClick
    return tuple(unique)
