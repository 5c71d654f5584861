"""Random changes that a mask must survive: other orientations, scanners, protocols and noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from deepgrow3d_app.model.region import DETAIL
from deepgrow3d_app.volume.volume import Mask

PERMUTE_PROBABILITY = 0.3
REMAP_PROBABILITY = 0.3
REMAP_KNOTS = np.linspace(-1.5, 1.5, 9)
INVERT_PROBABILITY = 0.1
WARP_PROBABILITY = 0.5
MAX_TILT_DEGREES = 30.0
MAX_BEND = 0.12
COARSEN_PROBABILITY = 0.3
COARSE_MM = (1.0, 5.0)
LEAST_COARSENING = 1.3
ENHANCEMENT = 0.15
"""Standard deviation in halves of the window: 30 HU by the default one."""


def turn(image: Tensor, truth: Tensor, may_permute: bool, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Both patches (i, j, k) under the same random flips and, in cubes of cubic voxels at times, axis permutation."""
    flipped = [axis for axis in range(3) if generator.random() < 0.5]
    image, truth = image.flip(flipped), truth.flip(flipped)
    if may_permute and len(set(image.shape)) == 1 and generator.random() < PERMUTE_PROBABILITY:
        axes = [int(axis) for axis in generator.permutation(3)]
        image, truth = image.permute(axes), truth.permute(axes)
    return image.contiguous(), truth.contiguous()


def warp(image: Tensor, truth: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Both patches (i, j, k) tilted about a random axis and bent by one smooth random field.

    Few patients have to stand for all: a tilted and bent spleen is another spleen.
    """
    if generator.random() >= WARP_PROBABILITY:
        return image, truth
    axis = generator.normal(size=3)
    angle = float(generator.uniform(-1, 1)) * np.deg2rad(MAX_TILT_DEGREES)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues' formula
    # An oblong patch must not be sheared: rotate in voxels, and let grid_sample have its -1 ... 1.
    half = np.array(image.shape[::-1]) / 2.0
    turned = rotation * half[None, :] / half[:, None]
    affine = torch.from_numpy(np.hstack((turned, np.zeros((3, 1)))).astype(np.float32))
    grid = functional.affine_grid(affine[None], [1, 1, *image.shape], align_corners=False)
    bend = MAX_BEND * float(generator.random())
    knots = int(generator.integers(3, 6))
    grid = grid + bend * torch.stack([smooth_field(image.shape, knots, generator) for _ in range(3)], dim=-1)
    both = torch.stack((image, truth.float()))[None]
    image, truth = functional.grid_sample(both, grid, padding_mode="border", align_corners=False)[0]
    return image, truth > 0.5


def coarsen(
    image: Tensor, truth: Tensor, spacing_mm: tuple[float, float, float], generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Both patches (i, j, k) as a scanner with larger voxels would have stored them; half of the time in thick slices.

    Args:
        image, truth: as they are.
        spacing_mm: voxel edges of the patches.
        generator: source of randomness.
    """
    if generator.random() >= COARSEN_PROBABILITY:
        return image, truth
    edges_mm = np.full(3, np.exp(generator.uniform(*np.log(COARSE_MM))))
    most = DETAIL  # what the server would not look at in finer voxels than these
    if generator.random() < 0.5:
        thick = int(generator.integers(3))
        edges_mm[np.arange(3) != thick] = 0.0
        most = np.inf
    steps = np.clip(edges_mm / np.array(spacing_mm), 1.0, most)
    if steps.max() < LEAST_COARSENING:
        return image, truth
    shape = [max(2, round(extent / step)) for extent, step in zip(image.shape, steps, strict=True)]
    both = torch.stack((image, truth.float()))[None]
    stored = functional.interpolate(both, size=shape, mode="area")
    stored[:, 1] = (stored[:, 1] > 0.5).float()
    image, truth = functional.interpolate(stored, size=tuple(image.shape), mode="trilinear")[0]
    return image, truth > 0.5


def enhancement(labels: Mask, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """By how much each structure of ``labels`` (i, j, k) is to be brighter, or darker, in normalised intensities.

    As in another phase of contrast, where the aorta, the kidneys and the portal vein change apart: few patients have
    to stand for all. After Billot et al., "SynthSeg", MedIA 2023, where every structure has any intensity.
    """
    changes = np.concatenate([[0.0], generator.normal(0, ENHANCEMENT, 255)]).astype(np.float32)
    return np.asarray(changes[labels])


def change_appearance(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Another contrast, brightness, sharpness and noise level for a normalised ``image`` (i, j, k)."""
    if generator.random() < 0.5:
        image = image * float(np.exp(generator.normal(0, 0.25))) + float(generator.normal(0, 0.15))
    if generator.random() < REMAP_PROBABILITY:
        image = remapped(image, generator)
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


def remapped(image: Tensor, generator: np.random.Generator) -> Tensor:
    """``image`` (i, j, k) with some ranges of intensity drawn apart and others together, in the order they are in.

    As another phase of contrast does: a vessel is far brighter than the liver, or hardly. Beyond the outermost of
    ``REMAP_KNOTS``, which stay where they are, nothing changes. After Zhou et al., "Models Genesis", MedIA 2021.
    """
    steps = np.exp(generator.normal(0, 0.6, REMAP_KNOTS.size - 1))
    low, high = REMAP_KNOTS[0], REMAP_KNOTS[-1]
    targets = low + (high - low) * np.concatenate([[0.0], steps.cumsum() / steps.sum()])
    inside = np.interp(image.numpy(), REMAP_KNOTS, targets).astype(np.float32)
    return torch.from_numpy(inside) + (image - image.clamp(float(low), float(high)))


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
