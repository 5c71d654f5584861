"""``/model``: the checkpoint that is served, and those that were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, UploadFile
from fastapi.responses import FileResponse

from deepgrow3d_app.errors import CheckpointError, InvalidRequest, NotFound
from deepgrow3d_app.retraining.versions import VersionRecord
from deepgrow3d_app.serving.access import ADMIN, FileWorkers, Served
from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.uploads import Upload

router = APIRouter(prefix="/model", tags=["Model"])


@router.get("/{model}", dependencies=ADMIN)
def download_model(served: Served, model: str) -> FileResponse:
    """The checkpoint."""
    return FileResponse(_checkpoint(served, model), filename=f"{model}.safetensors")


@router.get("/info/{model}", dependencies=ADMIN)
def model_info(served: Served, model: str) -> dict[str, Any]:
    """Checksum and time of the checkpoint."""
    _checkpoint(served, model)
    return served.model_info(model) or {}


@router.get("/versions/{model}", dependencies=ADMIN)
def model_versions(served: Served, model: str) -> dict[str, Any]:
    """What was served so far, the oldest first, and which of it is served; null before anything was replaced."""
    served.infer_task(model)
    versions = served.model.versions
    current = versions.current()
    return {"served": None if current is None else current.number, "versions": versions.all()}


@router.post("/rollback/{model}", dependencies=ADMIN)
async def roll_back(served: Served, workers: FileWorkers, model: str, version: int | None = None) -> VersionRecord:
    """Serve an earlier version again, from the next click on; without a number, the one before."""
    served.infer_task(model)
    return await workers.run(served.model.roll_back, version)


@router.put("/{model}", dependencies=ADMIN)
async def update_model(served: Served, workers: FileWorkers, model: str, file: UploadFile) -> dict[str, Any]:
    """Serve another checkpoint, from the next click on; the replaced one stays as a version."""
    served.infer_task(model)
    return await workers.run(_update_model, served, model, Upload.of(file))


def _update_model(served: DeepGrow3DApp, model: str, upload: Upload) -> dict[str, Any]:
    with upload.staged(served.incoming, "upload.safetensors") as path:
        try:
            version = served.model.publish(path, VersionRecord(made_by="upload"))
        except CheckpointError as error:
            raise InvalidRequest(f"The upload cannot be served. {error} Send a checkpoint of DeepGrow 3D.") from error
    return {**(served.model_info(model) or {}), "version": version.number}


@router.delete("/{model}", dependencies=ADMIN)
def delete_model(served: Served, model: str) -> None:
    """Refused: a server without weights could not answer."""
    served.infer_task(model)
    raise InvalidRequest(f"'{model}' is being served and cannot be deleted. Replace it with PUT /model/{model}.")


def _checkpoint(served: DeepGrow3DApp, model: str) -> Path:
    served.infer_task(model)
    if not served.model.path.is_file():
        raise NotFound(f"The checkpoint of '{model}' was taken away; the model in memory goes on serving.")
    return served.model.path
