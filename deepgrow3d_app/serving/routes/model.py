"""``/model``: the checkpoint that is served."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Any

from fastapi import APIRouter, UploadFile
from fastapi.responses import FileResponse

from deepgrow3d_app.errors import CheckpointError, InvalidRequest, NotFound
from deepgrow3d_app.model.engine_choice import EngineChoice
from deepgrow3d_app.serving.access import ADMIN, ANNOTATOR, FileWorkers, Served
from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.served_model import load_predictors
from deepgrow3d_app.serving.uploads import Upload
from deepgrow3d_app.volume.atomic_file import replace_file

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


@router.put("/{model}", dependencies=ANNOTATOR)
async def update_model(served: Served, workers: FileWorkers, model: str, file: UploadFile) -> dict[str, Any]:
    """Serve another checkpoint, from the next click on; the replaced one stays beside it."""
    served.infer_task(model)
    return await workers.run(_update_model, served, model, Upload.of(file))


def _update_model(served: DeepGrow3DApp, model: str, upload: Upload) -> dict[str, Any]:
    with upload.staged("upload.safetensors") as path:
        try:
            load_predictors(path, EngineChoice("torch", path.parent))
        except CheckpointError as error:
            raise InvalidRequest(f"The upload cannot be served. {error} Send a checkpoint of DeepGrow 3D.") from error
        _replace_checkpoint(served.model.path, path)
    return served.model_info(model) or {}


def _replace_checkpoint(served: Path, upload: Path) -> None:
    """Put ``upload`` in the place of ``served``, which stays beside it as ``NAME.previous.safetensors``."""
    # The same weights sent twice must not push out the ones before them.
    if served.is_file() and not filecmp.cmp(served, upload, shallow=False):
        with served.open("rb") as replaced:
            replace_file(served.with_name(f"{served.stem}.previous{served.suffix}"), replaced)
    with upload.open("rb") as content:
        replace_file(served, content)


@router.delete("/{model}", dependencies=ANNOTATOR)
def delete_model(served: Served, model: str) -> None:
    """Refused: a server without weights could not answer."""
    served.infer_task(model)
    raise InvalidRequest(f"'{model}' is being served and cannot be deleted. Replace it with PUT /model/{model}.")


def _checkpoint(served: DeepGrow3DApp, model: str) -> Path:
    served.infer_task(model)
    if not served.model.path.is_file():
        raise NotFound(f"The checkpoint of '{model}' was taken away; the model in memory goes on serving.")
    return served.model.path
