"""What a server keeps where the studies are read-only."""

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from monailabel.config import settings

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.settings import ServingSettings
from deepgrow3d_app.volume.cache import VolumeCache
from tests.unit.serving.test_sessions import upload


def test_sessions_lie_elsewhere_and_are_gone_with_the_server(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for name in ("temporary", "studies"):
        (tmp_path / name).mkdir()
    served: Any = SimpleNamespace(
        serving=ServingSettings(),
        is_read_only=True,
        kept=tmp_path / "studies" / ".deepgrow3d",
        volumes=VolumeCache(1 << 20),
        log=ClickLog(None),
        _at_end=contextlib.ExitStack(),
    )
    sessions = DeepGrow3DApp._load_sessions(served)
    session = sessions.add([upload()])
    assert (tmp_path / "temporary") in session.image.parents
    DeepGrow3DApp.close(served)
    assert [*(tmp_path / "temporary").iterdir(), *(tmp_path / "studies").iterdir()] == []


def test_a_dicomweb_server_cannot_be_served_read_only(monkeypatch):
    """Labels would be stored there, and whoever runs this server believes that nothing is."""
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_READ_ONLY", True)
    with pytest.raises(InvalidRequest, match=r"READ_ONLY is for studies in a folder: labels .* http://archive/dicom"):
        DeepGrow3DApp("apps/deepgrow3d", "http://archive/dicom-web", {})
