"""Made-up structures with borders that can be seen, for want of labelled patients.

Few labelled volumes teach a network those volumes. Random shapes of random contrast teach it what a
click means (after ScribblePrompt, Wong et al., ECCV 2024, and anatomix, Dey et al., ICLR 2025, who
train on wholly synthetic volumes).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deepgrow3d_app.training.augment import smooth_field, white_noise

MIN_CONTRAST = 0.12
TUBE_PROBABILITY = 0.3
CONTENTS_PROBABILITY = 0.25
GAS = (-2.6, 0.15)
"""Mean and standard deviation of its normalised intensity: -1000 HU, by the default window."""
TUBE_POINTS = 24


def random_scene(shape: tuple[int, int, int], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """An image of touching, overlapping blobs in varied tissue, and one of them as the target.

    Returns:
        Image float32 (i, j, k) in normalised intensities, and truth bool (i, j, k).
    """
    image = float(generator.normal(-0.3, 0.5)) + 0.3 * smooth_field(shape, 4, generator)
    count = int(generator.integers(4, 14))
    # Few tissues for many organs: neighbours often look alike, and only shape and clicks tell them apart.
    tissues = [
        textured(shape, float(generator.normal(0.1, 0.45)), generator) for _ in range(int(generator.integers(2, 5)))
    ]
    labels = torch.zeros(shape, dtype=torch.uint8)
    for value in range(1, count + 1):
        radius = float(np.exp(generator.uniform(np.log(0.06), np.log(0.35))))
        blob = random_shape(shape, radius, generator) > 0
        if generator.random() < 0.5:
            shell = functional.max_pool3d(blob[None, None].float(), 3, 1, 1)[0, 0] > 0
            image = torch.where(shell, torch.tensor(float(generator.normal(-0.6, 0.2))), image)
            labels[shell] = 0  # a wall, or fat, is no part of what was there before
        image = torch.where(blob, tissues[int(generator.integers(len(tissues)))], image)
        if generator.random() < CONTENTS_PROBABILITY:
            image = with_contents(image, blob, generator)
        labels[blob] = value
    target = int(generator.integers(max(1, count - 4), count + 1))
    if generator.random() < 0.7:
        image = functional.avg_pool3d(image[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
    image = image + float(generator.uniform(0.02, 0.2)) * white_noise(shape, generator)
    return image, labels == target


def paste_structure(image: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A made-up structure in a real ``image`` (i, j, k), with a soft border and a visible contrast.

    At times a second one of the same tissue lies beside it, or touches it, and is not meant.

    Returns:
        The changed image and the truth, bool (i, j, k).
    """
    shape = image.shape
    radius = float(np.exp(generator.uniform(np.log(0.08), np.log(0.4))))
    signed = random_shape((shape[0], shape[1], shape[2]), radius, generator)
    truth = signed > 0
    if not bool(truth.any()):
        return image, truth
    around = float(image[truth].median())
    contrast = MIN_CONTRAST + float(generator.exponential(0.3))
    level = around + contrast * (1 if generator.random() < 0.5 else -1)
    own = textured((shape[0], shape[1], shape[2]), level, generator)
    kept = 0.5 * float(generator.random())
    own = (1 - kept) * own + kept * (image - around + level)
    noise = float(generator.uniform(0.02, 0.15))
    own = own + noise * white_noise(shape, generator)
    if generator.random() < CONTENTS_PROBABILITY:
        own = with_contents(own, truth, generator)
    painted = truth
    if generator.random() < 0.4:
        twin = random_shape((shape[0], shape[1], shape[2]), radius, generator) > 0
        painted = truth | twin
    softness = functional.avg_pool3d(painted[None, None].float(), 3, 1, 1)[0, 0]
    return image + softness * (own - image), truth


def with_contents(image: Tensor, structure: Tensor, generator: np.random.Generator) -> Tensor:
    """``image`` with something else in a part of ``structure``, both (i, j, k): gas above a level, bubbles, calcium.

    The structure is what holds it, as a stomach does: a click that falls on its contents means all of it.
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    field = smooth_field(shape, int(generator.integers(4, 12)), generator)
    if generator.random() < 0.4:
        along = (torch.linspace(0, float(generator.normal()), extent) for extent in shape)
        field = sum(torch.meshgrid(*along, indexing="ij"), torch.zeros(shape))
    inside = structure
    if generator.random() < 0.5:
        wall = 2 * int(generator.integers(1, 3)) + 1
        outside = functional.max_pool3d((~structure)[None, None].float(), wall, 1, wall // 2)[0, 0] > 0
        inside = structure & ~outside
    if not bool(inside.any()):
        return image
    values = field[inside].sort().values
    least = values[int((1 - generator.uniform(0.05, 0.5)) * (len(values) - 1))]
    level = generator.normal(*GAS) if generator.random() < 0.5 else generator.normal(0.3, 0.8)
    return torch.where(inside & (field > least), float(level), image)


def random_shape(shape: tuple[int, int, int], radius: float, generator: np.random.Generator) -> Tensor:
    """A tube a third as wide as ``radius``, or else a blob, as fields (i, j, k): positive inside."""
    if generator.random() < TUBE_PROBABILITY:
        return random_tube(shape, max(radius / 3, 0.02), generator)
    return random_blob(shape, radius, generator)


def random_blob(shape: tuple[int, int, int], radius: float, generator: np.random.Generator) -> Tensor:
    """A deformed ellipsoid as a field (i, j, k): positive inside, negative outside.

    Args:
        shape: of the field.
        radius: mean radius as a fraction of the field's longest edge.
    """
    longest = max(shape)
    axes_ratio = np.exp(generator.normal(0, 0.35, 3))
    if generator.random() < 0.25:
        axes_ratio[int(generator.integers(3))] *= 3.0
    axes_ratio /= np.cbrt(axes_ratio.prod())
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    centre = [generator.uniform(0.2, 0.8) * extent for extent in shape]
    offsets = torch.stack(
        torch.meshgrid(
            *(
                (torch.arange(extent, dtype=torch.float32) - c) / longest
                for extent, c in zip(shape, centre, strict=True)
            ),
            indexing="ij",
        ),
        dim=-1,
    )
    turned: Tensor = offsets @ torch.from_numpy((rotation / (radius * axes_ratio)).astype(np.float32))
    distance: Tensor = torch.linalg.vector_norm(turned, dim=-1)
    knots = int(generator.integers(3, 9))
    roughness = float(generator.uniform(0.1, 0.6))
    return 1 + roughness * smooth_field(shape, knots, generator) - distance


def random_tube(shape: tuple[int, int, int], radius: float, generator: np.random.Generator) -> Tensor:
    """A winding tube of varying width, now and then forked, as a field (i, j, k): positive inside.

    Args:
        shape: of the field.
        radius: mean radius as a fraction of the field's longest edge.
    """
    longest = max(shape)
    length = float(np.exp(generator.uniform(np.log(0.4), np.log(1.6))))
    start = generator.uniform(0.25, 0.75, 3) * np.array(shape) / longest
    points = []
    for _ in range(2 if generator.random() < 0.3 else 1):
        heading = generator.normal(size=3)
        turning = generator.uniform(0.0, 0.5)
        position = start.copy()
        for _ in range(TUBE_POINTS):
            heading = heading / np.linalg.norm(heading) + turning * generator.normal(size=3)
            position = position + length / TUBE_POINTS * heading / np.linalg.norm(heading)
            points.append(position)
    # The distance to the nearest of some points a fraction of the radius apart, at a coarse resolution.
    widths = radius * np.exp(generator.normal(0, 0.2, len(points)))
    coarse = tuple(max(2, extent // 2) for extent in shape)
    axes = [torch.linspace(0.25, extent / 2 - 0.25, count) * 2 for extent, count in zip(shape, coarse, strict=True)]
    field = torch.full(coarse, -torch.inf)
    for point, width in zip(points, widths, strict=True):
        i, j, k = ((axis / longest - float(p)) ** 2 for axis, p in zip(axes, point, strict=True))
        distance = (i[:, None, None] + j[None, :, None] + k[None, None, :]).sqrt() / float(width)
        field = torch.maximum(field, 1 - distance)
    return functional.interpolate(field[None, None], size=tuple(shape), mode="trilinear")[0, 0]


def textured(shape: tuple[int, int, int], level: float, generator: np.random.Generator) -> Tensor:
    """Tissue (i, j, k) about ``level``: slow shading, fine grain and, at times, bright or dark vessels."""
    tissue = level + 0.06 * smooth_field(shape, 5, generator) * float(generator.random())
    tissue = tissue + 0.08 * float(generator.random()) * smooth_field(shape, 24, generator)
    if generator.random() < 0.3:
        ridge = 1 - smooth_field(shape, 9, generator).abs() / 0.12
        tissue = tissue + float(generator.normal(0, 0.3)) * ridge.clamp(min=0)
    return tissue
