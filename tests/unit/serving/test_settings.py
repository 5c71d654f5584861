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


@pytest.mark.parametrize("text", ["liver,spleen", " liver , spleen ,", '["liver", "spleen"]'])
def test_lists_are_written_with_commas_or_in_json(monkeypatch, text):
    monkeypatch.setenv("DEEPGROW3D_REFERENCE_STRUCTURES", text)
    monkeypatch.setenv("DEEPGROW3D_HOSTS", text)
    monkeypatch.setenv("DEEPGROW3D_REPLAY_FOLDERS", text)
    settings = ServingSettings.load({})
    assert settings.reference_structures == settings.hosts == ("liver", "spleen")
    assert settings.replay_folders == (Path("liver"), Path("spleen"))


def test_a_list_that_is_no_json_is_named(monkeypatch):
    monkeypatch.setenv("DEEPGROW3D_HOSTS", '["liver"')
    with pytest.raises(InvalidRequest, match="DEEPGROW3D_HOSTS is"):
        ServingSettings.load({})


def test_empty_variables_are_as_none(monkeypatch):
    default = ServingSettings.load({})
    for name in ServingSettings.model_fields:
        monkeypatch.setenv(f"DEEPGROW3D_{name.upper()}", "")
    assert ServingSettings.load({}) == default


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        ServingSettings.load({}).worker_threads = 2
