"""The volumes that are clicked in: the sample CT, a slab of large slices, and a large generated CT."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.volume.boxed_mask import Region
from deepgrow3d_app.volume.geometry import Shape, Spacing

TRUNK_FOLDER = Path(__file__).parents[2] / "sample-data" / "reference" / "ct-trunk"
STRUCTURES = ("liver", "spleen", "kidney_right", "stomach")
"""What annotators click on, the first one where there is only one annotator."""

TRUNK, SLAB, LARGE = "ct-trunk", "ct-slab", "ct-large"
NAMES = (TRUNK, SLAB, LARGE)
GENERATED_GRIDS: dict[str, tuple[Shape, Spacing]] = {
    SLAB: ((512, 512, 20), (0.98, 0.98, 2.0)),
    LARGE: ((512, 512, 300), (0.8, 0.8, 1.5)),
}
HALF_LENGTH_MM = 225.0
"""Of what the body's organs are placed in, upwards and downwards: a slab cuts through them."""

ORGANS = {  # middle and half axes as fractions of the volume's half width and depth and of HALF_LENGTH_MM, HU
    "liver": ((-0.30, -0.05, 0.10), (0.33, 0.30, 0.33), 70),
    "spleen": ((0.46, 0.14, 0.14), (0.13, 0.18, 0.22), 65),
    "stomach": ((0.25, -0.22, 0.12), (0.19, 0.17, 0.20), 35),
    "kidney_right": ((-0.30, 0.32, -0.10), (0.11, 0.11, 0.24), 110),
    "kidney_left": ((0.30, 0.36, -0.06), (0.11, 0.11, 0.24), 110),
    "spine": ((0.0, 0.42, 0.0), (0.11, 0.11, 2.0), 300),
}
BODY, BODY_HU, AIR_HU, NOISE_HU = (0.86, 0.66), 20, -1000, 14


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """An image file and what is to be found in it.

    Attributes:
        name: what tables call it, and its id on a server.
        image: a .nii.gz file.
        origin: where it is from, for people to read.
        shape: voxels (i, j, k).
        simulator: clicks on its grid.
        truths: bool (i, j, k), by structure.
    """

    name: str
    image: Path
    origin: str
    shape: Shape
    simulator: ClickSimulator
    truths: dict[str, Region]


def sample_study(name: str, folder: Path) -> Study:
    """The labelled case in ``folder``: image.nii.gz, labels.nii.gz, structures.json."""
    source = find_cases(folder)[0]
    case = source.load()
    wanted = [structure for structure in STRUCTURES if structure in case.structures] or list(case.structures)[:1]
    truths = {structure: case.truth(structure) for structure in wanted}
    simulator = ClickSimulator(case.volume.spacing_mm)
    return Study(name, source.image.resolve(), "a real CT", case.volume.shape, simulator, truths)


def generated_study(name: str, folder: Path) -> Study:
    """A made-up CT, written to ``folder``: always the same one."""
    shape, spacing_mm = GENERATED_GRIDS[name]
    voxels, truths = _anatomy(shape, spacing_mm)
    _add_noise(voxels)
    i, j, k = spacing_mm
    image: Any = nib.Nifti1Image(voxels, np.diag((-i, -j, k, 1.0)))  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    path = folder / f"{name}.nii.gz"
    nib.save(image, path)
    kept = {structure: truths[structure] for structure in STRUCTURES}
    return Study(name, path, "generated", shape, ClickSimulator(spacing_mm), kept)


def decoy_image(path: Path) -> None:
    """A tiny image: servers that look into one of their images when they start are shown this one."""
    voxels = np.full((16, 16, 16), AIR_HU, np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)  # type: ignore[no-untyped-call]


def forget_on_disk(path: Path) -> None:
    """Have the system read ``path`` from the disk again: nobody has had it in memory when its first click comes."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _anatomy(shape: Shape, spacing_mm: Spacing) -> tuple[npt.NDArray[np.int16], dict[str, Region]]:
    """Organs in a body in air, all of them ellipsoids with wavy borders; none lies in another."""
    half_mm = (shape[0] * spacing_mm[0] / 2, shape[1] * spacing_mm[1] / 2, HALF_LENGTH_MM)
    x, y, z = (
        (axis - (extent - 1) / 2) * edge_mm / half
        for axis, extent, edge_mm, half in zip(
            np.ogrid[: shape[0], : shape[1], : shape[2]], shape, spacing_mm, half_mm, strict=True
        )
    )
    voxels = np.full(shape, AIR_HU, np.int16, order="F")
    voxels[np.broadcast_to((x / BODY[0]) ** 2 + (y / BODY[1]) ** 2 < 1, shape)] = BODY_HU
    wave = 0.12 * np.sin(19 * x) * np.cos(23 * y) * np.sin(17 * z)
    truths: dict[str, Region] = {}
    for name, ((a, b, c), (ra, rb, rc), hu) in ORGANS.items():
        region = np.asfortranarray(((x - a) / ra) ** 2 + ((y - b) / rb) ** 2 + ((z - c) / rc) ** 2 + wave < 1)
        for other in truths.values():
            region &= ~other
        voxels[region] = hu
        truths[name] = region
    return voxels, truths


def _add_noise(voxels: npt.NDArray[np.int16]) -> None:
    generator = np.random.default_rng(0)
    for k in range(voxels.shape[2]):
        noise = NOISE_HU * generator.standard_normal(voxels.shape[:2], dtype=np.float32)
        voxels[:, :, k] += noise.astype(np.int16)
