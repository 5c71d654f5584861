"""The network's input channels, put together in one place for training and serving."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepgrow3d_app.click.batched_maps import ClickTable, barriers_of, guidance_of, walkers_of
from deepgrow3d_app.click.guidance import Point, barrier_maps, guidance_maps
from deepgrow3d_app.click.random_walk import walker_maps
from deepgrow3d_app.click.resolution import at_full_resolution, at_half_resolution
from deepgrow3d_app.model.spec import ModelSpec


def network_inputs(
    image: Tensor, foreground: Sequence[Point], background: Sequence[Point], previous: Tensor, spec: ModelSpec
) -> Tensor:
    """The channels of ``spec`` for one patch.

    Args:
        image: float32 (i, j, k) of ``spec.patch_shape``, normalised intensities.
        foreground, background: clicks in patch voxels.
        previous: float32 (i, j, k), 1 inside the mask before these clicks; zeros at a cold start.
            Left out where the spec does not use it.
        spec: says which channels there are.

    Returns:
        float32 (``spec.input_channels``, i, j, k): image, foreground map, background map, previous
        mask, foreground barrier map, background barrier map, walker maps.
    """
    # The region's zoom scales the kernel with it: sigma is given at zoom 1, in units of that spacing.
    channels = [
        image[None],
        guidance_maps(foreground, background, spec.patch_shape, spec.spacing_mm, spec.sigma_mm, image.device),
    ]
    if spec.previous_mask:
        channels.append(previous[None])
    if spec.barrier_scale > 0:
        channels.append(barrier_maps(image, foreground, background, spec.barrier_scale, spec.barrier_reach))
    if spec.walker_sigmas:
        channels.append(walker_maps(image, foreground, background, spec.walker_sigmas))
    return torch.cat(channels)


def batched_inputs(
    images: Tensor,
    foreground: Sequence[Sequence[Point]],
    background: Sequence[Sequence[Point]],
    previous: Tensor,
    spec: ModelSpec,
) -> Tensor:
    """The same for n patches at once: on a GPU, in as many calls as for one.

    Args:
        images, previous: float32 (n, i, j, k), as above.
        foreground, background: for each patch, its clicks.
        spec: as above.

    Returns:
        float32 (n, ``spec.input_channels``, i, j, k).
    """
    clicks = ClickTable.of(foreground, background, images.device)
    channels = [images[:, None], guidance_of(clicks, spec.patch_shape, spec.spacing_mm, spec.sigma_mm)]
    if spec.previous_mask:
        channels.append(previous[:, None])
    smooth = at_half_resolution(images)
    if spec.barrier_scale > 0:
        channels.append(at_full_resolution(barriers_of(smooth, clicks, spec.barrier_scale, spec.barrier_reach)))
    if spec.walker_sigmas:
        channels.append(at_full_resolution(walkers_of(smooth, clicks, spec.walker_sigmas)))
    return torch.cat(channels, dim=1)
