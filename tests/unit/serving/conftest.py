"""A folder of studies, as servers get it, and labels that are saved in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import read_mask, write_mask

SHAPE = (6, 7, 8)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """One image, ``ct``, of ``SHAPE``, empty; no labels."""
    folder = tmp_path / "studies"
    folder.mkdir()
    write_mask(np.zeros(SHAPE, np.uint8), np.eye(4), folder / "ct.nii.gz")
    return folder


@pytest.fixture
def log():
    return ClickLog(None)


@pytest.fixture
def datastore(studies, log):
    return StudiesDatastore(studies, VolumeCache(1 << 20), log, auto_reload=False, model_digest=lambda: "net")


@pytest.fixture
def save(datastore, tmp_path):
    """``save(value, client_id=..)``: a label all of whose voxels are ``value``."""

    def save(value, **info):
        write_mask(np.full(SHAPE, value, np.uint8), np.eye(4), tmp_path / "label.nii.gz")
        return datastore.save_label("ct", str(tmp_path / "label.nii.gz"), "final", info)

    return save


def values(datastore):
    """What each version is made of."""
    versions = datastore.history.versions("ct", "final")
    files = [datastore.history.file("ct", "final", version.number) for version in versions]
    return [int(read_mask(file)[0][0, 0, 0]) for file in files]
