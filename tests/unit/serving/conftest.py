"""A folder of studies, as servers get it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.volume.files import write_mask

SHAPE = (6, 7, 8)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """One image, ``ct``, of ``SHAPE``, empty; no labels."""
    folder = tmp_path / "studies"
    folder.mkdir()
    write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), folder / "ct.nii.gz")
    return folder
