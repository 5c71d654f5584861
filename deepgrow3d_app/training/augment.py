"""Random changes that a mask must survive: other orientations, scanners, protocols and noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PERMUTE_PROBABILITY = 0.3
INVERT_PROBABILITY = 0.1


def turn(image: Tensor, truth: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Both patches (i, j, k) under the same random flips and, in cubes at times, axis permutation."""
    flipped = [axis for axis in range(3) if generator.random() < 0.5]
    image, truth = image.flip(flipped), truth.flip(flipped)
    if len(set(image.shape)) == 1 and generator.random() < PERMUTE_PROBABILITY:
        axes = [int(axis) for axis in generator.permutation(3)]
        image, truth = image.permute(axes), truth.permute(axes)
    return image.contiguous(), truth.contiguous()


def change_appearance(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Another contrast, brightness, sharpness and noise level for a normalised ``image`` (i, j, k)."""
    if generator.random() < 0.5:
        image = image * float(np.exp(generator.normal(0, 0.25))) + float(generator.normal(0, 0.15))
    if generator.random() < INVERT_PROBABILITY:
        image = -image
    if generator.random() < 0.2:
        field = smooth_field(image.shape, int(generator.integers(2, 5)), generator)
        image = image + 0.3 * float(generator.random()) * field
    if generator.random() < 0.2:
        image = _blurred(image, generator)
    if generator.random() < 0.5:
        image = image + float(generator.exponential(0.06)) * white_noise(image.shape, generator)
    return image


def smooth_field(shape: torch.Size | tuple[int, ...], knots: int, generator: np.random.Generator) -> Tensor:
    """A smooth random field (i, j, k) about 0 with values of order 1, from ``knots`` random values an axis."""
    coarse = torch.from_numpy(generator.normal(size=(1, 1, knots, knots, knots)).astype(np.float32))
    return functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def white_noise(shape: torch.Size | tuple[int, ...], generator: np.random.Generator) -> Tensor:
    """Independent standard normal values (i, j, k)."""
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


def _blurred(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Averaged over neighbours, along one axis (thick slices) or all."""
    kernel = [3, 3, 3] if generator.random() < 0.5 else [1, 1, 1]
    kernel[int(generator.integers(3))] = int(generator.choice([3, 5]))
    padding = [size // 2 for size in kernel]
    return functional.avg_pool3d(image[None, None], kernel, 1, padding, count_include_pad=False)[0, 0]
