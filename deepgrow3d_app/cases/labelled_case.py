"""An image with a reference segmentation, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.volume.volume import Mask, Volume

BLOCK_VOXELS = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCase:
    """An image with a reference, on the stored grid.

    Attributes:
        name: unique among the cases of one folder.
        volume: the image.
        labels: uint8 (i, j, k), the label map on the grid of ``volume``; 0 is background.
        structures: name to label value, of those that have at least one voxel, in the order of their values.
    """

    name: str
    volume: Volume
    labels: Mask
    structures: dict[str, int]

    def truth(self, structure: str) -> npt.NDArray[np.bool_]:
        """Where ``structure`` is: bool (i, j, k), on the grid of the volume.

        Raises:
            NotFound: it has no voxel in this case.
        """
        value = self.structures.get(structure)
        if value is None:
            there_are = ", ".join(self.structures) or "none"
            raise NotFound(
                f"There is no structure '{structure}' in the case '{self.name}'. Name one that it has: {there_are}."
            )
        return np.asarray(self.labels == value)


def structures_in(labels: Mask, names: Mapping[str, int]) -> dict[str, int]:
    """Name to value of the structures that have a voxel in ``labels``, in the order of their values.

    A value that ``names`` does not name is called ``label V``.
    """
    name_of = {value: name for name, value in names.items()}
    present = (int(value) for value in np.flatnonzero(voxel_counts(labels)))
    return {name_of.get(value, f"label {value}"): value for value in present if value != 0}


def voxel_counts(labels: Mask) -> npt.NDArray[np.int64]:
    """How many voxels hold each value: (256,).

    In blocks, because ``np.bincount`` takes eight bytes for each voxel that it is given.
    """
    values = labels.ravel(order="K")
    counts = np.zeros(256, np.int64)
    for start in range(0, values.size, BLOCK_VOXELS):
        counts += np.bincount(values[start : start + BLOCK_VOXELS], minlength=256)
    return counts
