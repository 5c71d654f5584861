"""An annotator who knows the truth: looks at a mask, finds where it is wrong, clicks there.

The same simulator trains the network (``sampled``) and judges it (``deepest``). The rule is that of
RITM (Sofiiuk et al., "Reviving iterative training with mask guidance", ICIP 2022): the click goes to
the deepest voxel of the largest error. Training draws from the same errors at random instead, because
no person clicks so precisely.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import cc3d
import edt
import numpy as np
import numpy.typing as npt

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.volume.geometry import Index, Spacing

Policy = Literal["deepest", "sampled"]
Region = npt.NDArray[np.bool_]


class ClickSimulator:
    """Chooses the next click for a mask, given the truth.

    Args:
        spacing_mm: voxel edge lengths of the grid that truth and masks lie on.
        policy: ``deepest`` clicks the voxel of the largest error that is farthest (in mm) from the
            error's boundary; ``sampled`` picks an error with a probability that grows with its
            size, and in it a voxel with a probability that grows with its depth.
        generator: source of randomness for ``sampled``.
    """

    def __init__(
        self, spacing_mm: Spacing, policy: Policy = "deepest", generator: np.random.Generator | None = None
    ) -> None:
        self.spacing_mm = spacing_mm
        self.policy = policy
        self.generator = generator if generator is not None else np.random.default_rng(0)

    def next_click(self, truth: Region, mask: Region, clicked: Iterable[Index] = ()) -> Click | None:
        """The next click, or ``None`` where nothing is left to correct.

        Args:
            truth, mask: bool (i, j, k) on one grid.
            clicked: voxels that carry a click already; none of them is returned.
        """
        errors = truth != mask
        for index in clicked:
            errors[index] = False
        if not errors.any():
            return None
        box = bounding_box(errors)
        errors, inside = errors[box], truth[box]
        # An untouched structure is clicked in its own middle, however many pieces it has.
        region = errors if not mask.any() else self._choose_error(errors, inside)
        depth_mm = edt.edt(region, anisotropy=self.spacing_mm, black_border=True)
        local = self._choose_voxel(depth_mm)
        i, j, k = (int(position) + extent.start for position, extent in zip(local, box, strict=True))
        return Click((i, j, k), bool(inside[tuple(local)]))

    def _choose_error(self, errors: Region, inside: Region) -> Region:
        """One 26-connected component of the missed or of the invented voxels."""
        # Two values for two kinds of error, so that touching ones stay apart.
        kinds = errors.astype(np.uint8) + (errors & inside)
        components = cc3d.connected_components(kinds, connectivity=26)
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        if self.policy == "deepest":
            chosen = int(sizes.argmax())
        else:
            chosen = int(self.generator.choice(sizes.size, p=sizes / sizes.sum()))
        return np.asarray(components == chosen)

    def _choose_voxel(self, depth_mm: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        if self.policy == "deepest":
            flat = int(depth_mm.argmax())
        else:
            candidates = np.flatnonzero(depth_mm)
            weights = depth_mm.ravel()[candidates].astype(np.float64)
            flat = int(self.generator.choice(candidates, p=weights / weights.sum()))
        return np.array(np.unravel_index(flat, depth_mm.shape))


def bounding_box(region: Region) -> tuple[slice, slice, slice]:
    """The smallest box (i, j, k) that holds every true voxel of a non-empty ``region``."""
    slices = []
    for axis in range(3):
        occupied = np.flatnonzero(region.any(axis=tuple(other for other in range(3) if other != axis)))
        slices.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return slices[0], slices[1], slices[2]
