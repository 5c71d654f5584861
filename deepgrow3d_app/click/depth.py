"""How deep inside an error a voxel lies: exact distance transforms of many patches at once, on their device."""

from __future__ import annotations

import math

import edt
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepgrow3d_app.volume.geometry import Spacing


def error_depth_mm(truths: Tensor, masks: Tensor, spacing_mm: Spacing) -> Tensor:
    """The distance of each wrong voxel to the nearest one that is right, or wrong in the other way.

    On a CPU by the package ``edt``, on a GPU by :func:`squared_depth`: the same numbers.

    Args:
        truths, masks: bool (n, i, j, k). What lies beyond the array is right.
        spacing_mm: voxel edges.

    Returns:
        float32 (n, i, j, k) in mm; 0 where the mask is right.
    """
    if truths.device.type != "cpu":
        missed, invented = truths & ~masks, masks & ~truths
        return (squared_depth(missed, spacing_mm) + squared_depth(invented, spacing_mm)).sqrt()
    depths = [
        kinds_depth_mm((truth ^ mask).view(np.uint8) << mask.view(np.uint8), spacing_mm)
        for truth, mask in zip(truths.numpy(), masks.numpy(), strict=True)
    ]
    return torch.from_numpy(np.stack(depths))


def kinds_depth_mm(kinds: npt.NDArray[np.uint8], spacing_mm: Spacing) -> npt.NDArray[np.float32]:
    """The same for one array (i, j, k) that is 1 where the mask misses something, 2 where it invents, else 0."""
    depth: npt.NDArray[np.float32] = edt.edt(kinds, anisotropy=spacing_mm, black_border=True, parallel=1)
    return depth


def squared_depth(regions: Tensor, spacing_mm: Spacing) -> Tensor:
    """The squared distance of each voxel to the nearest one that is not in its region.

    One axis after the other, as Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions" (2012):
    runs along i first, then the lowest of the parabolas along j and k. Here each parabola is tried as a shift of
    the whole array, as far as the deepest voxel demands: few shifts for thin regions, and no loop over voxels.

    Args:
        regions: bool (n, i, j, k). What lies beyond the array is in no region.
        spacing_mm: voxel edges.

    Returns:
        float32 (n, i, j, k) in mm squared; 0 outside of the regions.
    """
    squares = _along_runs(regions) * spacing_mm[0]
    squares = squares * squares
    for axis in (2, 3):
        squares = _lowest_parabola(squares, axis, spacing_mm[axis - 1])
    return squares


def _along_runs(regions: Tensor) -> Tensor:
    """Voxels to the nearest end of the run along i that a voxel lies in: float32, 0 outside."""
    extent = regions.shape[1]
    place = torch.arange(extent, device=regions.device, dtype=torch.float32)[None, :, None, None]
    before = torch.where(regions, -1.0, place).cummax(dim=1).values
    after = torch.where(regions, float(extent), place).flip(1).cummin(dim=1).values.flip(1)
    return torch.minimum(place - before, after - place)


def _lowest_parabola(squares: Tensor, axis: int, edge_mm: float) -> Tensor:
    """Min over other voxels along ``axis`` of their square plus that of their distance."""
    extent = squares.shape[axis]
    place = torch.arange(extent, device=squares.device, dtype=torch.float32)
    to_border = (torch.minimum(place + 1, extent - place) * edge_mm) ** 2
    lowest = torch.minimum(squares, to_border.reshape([-1 if other == axis else 1 for other in range(4)]))
    # No parabola reaches farther than where it is as high as the highest square.
    farthest = math.floor(float(lowest.max()) ** 0.5 / edge_mm) if squares.numel() > 0 else 0
    for shift in range(1, min(farthest, extent - 1) + 1):
        raised = squares + (shift * edge_mm) ** 2
        count = extent - shift
        for target, source in ((shift, 0), (0, shift)):
            part = lowest.narrow(axis, target, count)
            torch.minimum(part, raised.narrow(axis, source, count), out=part)
    return lowest
