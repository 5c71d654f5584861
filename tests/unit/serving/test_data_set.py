"""The data set as it is downloaded, from a route on an application of its own."""

import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.faults import answer_faults
from deepgrow3d_app.serving.incoming import Incoming
from deepgrow3d_app.serving.routes import datastore as routes
from deepgrow3d_app.serving.security.callers import Caller
from deepgrow3d_app.serving.security.identity import EVERYBODY
from deepgrow3d_app.serving.workers import Workers
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import write_mask

MASK = np.ones((4, 5, 6), np.uint8)


@pytest.fixture
def studies(tmp_path):
    """Three images, and a label of two of them."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_mask(MASK, np.eye(4), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def datastore(studies, tmp_path):
    datastore = StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)
    write_mask(MASK, np.eye(4), tmp_path / "label.nii.gz")
    for name in ("a", "b"):
        datastore.save_label(name, str(tmp_path / "label.nii.gz"), "final", {})
    return datastore


@pytest.fixture
def client(datastore, tmp_path):
    api = FastAPI()
    api.state.served = SimpleNamespace(images=lambda: datastore, incoming=Incoming(tmp_path / "incoming"))
    api.state.file_workers = Workers(1, 1)
    answer_faults(api)
    api.include_router(routes.router)

    @api.middleware("http")
    async def everybody(request, call_next):
        request.state.caller = Caller(EVERYBODY, None, "")
        return await call_next(request)

    return TestClient(api, raise_server_exceptions=False)


def archive_in(answer):
    assert answer.status_code == 200, answer.text
    return zipfile.ZipFile(io.BytesIO(answer.content))


def test_it_holds_images_with_their_labels_and_nothing_is_left_of_it(client, studies, tmp_path):
    archive = archive_in(client.get("/datastore/dataset"))
    files = {f"image/{name}.nii.gz" for name in "ab"} | {f"label/{name}.nii.gz" for name in "ab"}
    assert set(archive.namelist()) == files | {"metadata.json"}
    assert archive.read("image/b.nii.gz") == (studies / "b.nii.gz").read_bytes()
    assert archive.read("label/a.nii.gz") == (studies / "labels" / "final" / "a.nii.gz").read_bytes()
    assert set(json.loads(archive.read("metadata.json"))["objects"]) == {"a", "b", "c"}
    assert list((tmp_path / "incoming").iterdir()) == []


def test_fewer_cases(client):
    archive = archive_in(client.get("/datastore/dataset?limit_cases=1"))
    assert len(archive.namelist()) == 3


@pytest.mark.parametrize("missing", ["b.nii.gz", "labels/final/b.nii.gz"])
def test_a_file_that_is_missing_is_named_and_nothing_is_left(client, studies, tmp_path, missing):
    (studies / missing).unlink()
    answer = client.get("/datastore/dataset")
    assert answer.status_code == 404
    assert "a file of 'b' is missing" in answer.json()["detail"]
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_file_that_goes_away_meanwhile_is_named_too(client, studies, datastore, tmp_path, monkeypatch):
    found = datastore.image_download

    def removed_then(image_id):
        path = found(image_id)
        path.unlink()
        return path

    monkeypatch.setattr(datastore, "image_download", removed_then)
    answer = client.get("/datastore/dataset")
    assert answer.status_code == 404
    assert "a file of 'a' is missing" in answer.json()["detail"]
    assert list((tmp_path / "incoming").iterdir()) == []


def test_there_is_none_without_labels(client, datastore, tmp_path):
    for name in ("a", "b"):
        datastore.remove_label(name, "final")
    answer = client.get("/datastore/dataset")
    assert answer.status_code == 404
    assert "Save a label first" in answer.json()["detail"]
    assert list((tmp_path / "incoming").iterdir()) == []


def test_nothing_is_left_where_it_could_not_be_sent(client, tmp_path, monkeypatch):
    async def broken_off(self, scope, receive, send):
        assert len(list((tmp_path / "incoming").iterdir())) == 1
        raise OSError("the client is gone")

    monkeypatch.setattr("fastapi.responses.FileResponse.__call__", broken_off)
    assert client.get("/datastore/dataset").status_code == 500
    assert list((tmp_path / "incoming").iterdir()) == []
