"""Series of the phantom, and the server before an archive that has them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress
from deepgrow3d_app.volume.volume import Volume
from tests.integration.launcher import Launcher, Server

needs_orthanc = pytest.mark.skipif(
    shutil.which("Orthanc") is None and not os.environ.get("CI"),
    reason="Orthanc is not installed (Debian: apt install orthanc orthanc-dicomweb)",
)

NAMES = {1: "spleen", 2: "left kidney", 3: "my lesion", 4: "liver"}


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A series on the server.

    Attributes:
        uid: its SeriesInstanceUID, which is the image's id.
        volume: on the grid of the series.
        tissue: bool (i, j, k), the ellipsoid.
        label: uint8 (i, j, k), values 0 to 4 without any symmetry.
    """

    uid: str
    volume: Volume
    tissue: npt.NDArray[np.bool_]
    label: npt.NDArray[np.uint8]

    @property
    def centre(self) -> list[int]:
        """A voxel inside the ellipsoid."""
        return [round(float(indices.mean())) for indices in np.nonzero(self.tissue)]


def serve(launcher: Launcher, address: DicomWebAddress, *options: str) -> Server:
    return launcher.start_command(launcher.folder, "serve", "--studies", address.url, *options)
