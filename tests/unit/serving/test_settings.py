from pathlib import Path

import pytest
from pydantic import ValidationError

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.settings import ServingSettings


def test_the_environment_is_read_and_conf_lies_on_top(monkeypatch):
    monkeypatch.setenv("DEEPGROW3D_WORKER_THREADS", "3")
    monkeypatch.setenv("DEEPGROW3D_CHECKPOINT", "/models/a.safetensors")
    settings = ServingSettings.load({"checkpoint": "/models/b.safetensors", "models": "deepgrow_3d"})
    assert settings.worker_threads == 3
    assert settings.checkpoint == Path("/models/b.safetensors")


@pytest.mark.parametrize(
    ("name", "value"), [("WORKER_THREADS", "0"), ("UPLOAD_BYTES", "much"), ("SESSION_EXPIRY_S", "5")]
)
def test_a_value_that_cannot_be_used_is_named(monkeypatch, name, value):
    monkeypatch.setenv(f"DEEPGROW3D_{name}", value)
    with pytest.raises(InvalidRequest, match=f"DEEPGROW3D_{name} is '{value}': Input should be"):
        ServingSettings.load({})


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        ServingSettings.load({}).worker_threads = 2
