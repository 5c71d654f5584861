"""``/infer``: clicks in, a mask out."""

from __future__ import annotations

import dataclasses
import json
import mimetypes
import uuid
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from urllib3.filepost import encode_multipart_formdata

from deepgrow3d_app.errors import Busy, Cancelled, InvalidRequest, NoForegroundClick, Superseded
from deepgrow3d_app.serving.access import USER, ClickLine, Measured, Served, SignedIn
from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.click_queue import ClickSet
from deepgrow3d_app.serving.compact_answer import CompactAnswer, with_params
from deepgrow3d_app.serving.faults import status_and_reason
from deepgrow3d_app.serving.infer_request import InferRequest
from deepgrow3d_app.serving.infer_task import SEG_EXTENSION, AnswerForm, DeepGrowInferTask, InferAnswer
from deepgrow3d_app.serving.json_text import parse_object
from deepgrow3d_app.serving.label_grid import RAW_EXTENSION, read_label
from deepgrow3d_app.serving.studies_index import IMAGE_EXTENSIONS
from deepgrow3d_app.serving.uploads import Upload
from deepgrow3d_app.volume.files import read_volume
from deepgrow3d_app.volume.volume import Volume

router = APIRouter(prefix="/infer", tags=["Infer"])

Output = Literal["all", "image", "json", "compact", "dicom_seg"]

BINARY = "application/octet-stream"
DICOM = "application/dicom"


@router.post(
    "/{model}",
    dependencies=USER,
    response_class=Response,
    responses={
        200: {
            "content": {"multipart/form-data": {}, BINARY: {}, DICOM: {}, "application/json": {}},
            "model": CompactAnswer,
            "description": "all: params and a file. image: the file. json: params. compact: see CompactAnswer. "
            "dicom_seg: a DICOM SEG of the series.",
        }
    },
)
async def infer(
    served: Served,
    queue: ClickLine,
    metrics: Measured,
    caller: SignedIn,
    http_request: Request,
    model: str,
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File(description="an image, in place of `image` and `session_id`")] = None,
    label: Annotated[UploadFile | None, File(description="a mask to start from, on the grid of the image")] = None,
    output: Output = "all",
) -> Response:
    """The mask of the structure that was clicked.

    Clicks are voxels (i, j, k) of the stored image, all of them at every call:
    `params` = `{"label": "liver", "foreground": [[60, 50, 40]], "background": []}`. With `"image_etag"`, the `ETag` of
    `GET /datastore/image` without its quotes, clicks are refused (409) where the image was replaced since.
    """
    task = served.infer_task(model)
    request = dataclasses.replace(InferRequest.from_params(parse_object(params, "params")), annotator=caller.name)
    uploads = {name: Upload.of(sent) for name, sent in (("file", file), ("label", label)) if sent is not None}
    if not any(click.is_positive for click in request.clicks):
        raise NoForegroundClick
    # Who does not say who he is, or sends an image or a mask along, is nobody's earlier self.
    client = uuid.uuid4().hex if uploads or not request.client else request.client
    # What a viewer calls itself may be the same for everybody; whoever signed in is known by name.
    annotator = (model, image, session_id, request.label, client, caller.name)
    asked = ClickSet(annotator, frozenset(request.clicks))
    form: AnswerForm = output if output in ("compact", "dicom_seg") else "file"
    compute = partial(_answer, served, task, request, image, session_id, uploads, form)
    try:
        turn = await queue.run(compute, asked, http_request.is_disconnected)
    except Exception as error:
        metrics.not_answered(_outcome(error))
        raise
    answer = turn.result
    answer.params["latencies"]["queue"] = round(turn.waited_s, 3)
    answer.params["queue_position"] = turn.position
    metrics.answered(answer.params["latencies"])
    return _response(answer, output)


def _outcome(error: Exception) -> str:
    """What the metrics call it."""
    if isinstance(error, Busy | Superseded | Cancelled):
        return type(error).__name__.lower()
    return "failed" if status_and_reason(error)[0] >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused"


def _answer(
    served: DeepGrow3DApp,
    task: DeepGrowInferTask,
    request: InferRequest,
    image: str,
    session_id: str,
    uploads: dict[str, Upload],
    form: AnswerForm,
) -> InferAnswer:
    if "file" in uploads:
        extension = uploads["file"].extension
        if extension not in IMAGE_EXTENSIONS:
            raise InvalidRequest(f"'file' is no image that can be read. Send one of {', '.join(IMAGE_EXTENSIONS)}.")
        with uploads["file"].staged(served.incoming, f"file{extension}") as path:
            # The next request sends the file again, under another path: neither it nor its mask is worth keeping.
            return _answer_on(served, task, request, path, "", uploads.get("label"), form, read_volume(path))
    if session_id:
        path = served.viewer_sessions().get(session_id, touch=True).image
    elif image:
        path = served.images().image_file(image)
        served.images().check_etag(image, request.image_etag)
    else:
        raise InvalidRequest("There is no image. Name one with image=ID or session_id=ID, or send it as 'file'.")
    return _answer_on(served, task, request, path, session_id, uploads.get("label"), form)


def _answer_on(
    served: DeepGrow3DApp,
    task: DeepGrowInferTask,
    request: InferRequest,
    image: Path,
    session_id: str,
    label: Upload | None,
    form: AnswerForm,
    volume: Volume | None = None,
) -> InferAnswer:
    if label is None:
        return task.answer(request, image, volume=volume, session_id=session_id, form=form)
    with label.staged(served.incoming, f"label{label.extension or RAW_EXTENSION}") as path:
        previous = (read_label(path, volume or served.volumes.get(image)) > 0).astype("uint8")
    return task.answer(request, image, volume=volume, previous=previous, form=form)


def _response(answer: InferAnswer, output: Output) -> Response:
    params = json.dumps(answer.params)
    if output == "json":
        return Response(params, media_type="application/json")
    if output == "compact":
        return Response(with_params(answer.content, answer.params), media_type="application/json")
    # Viewers save the file under this name: two answers must not meet in one file.
    name = f"{uuid.uuid4().hex}{answer.extension}"
    media_type = DICOM if answer.extension == SEG_EXTENSION else mimetypes.guess_type(name, strict=False)[0] or BINARY
    if output in ("image", "dicom_seg"):
        return Response(
            answer.content,
            media_type=media_type,
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )
    fields: dict[str, Any] = {
        "params": (None, params, "application/json"),
        "image": (name, answer.content, media_type),
    }
    body, content_type = encode_multipart_formdata(fields)
    return Response(body, media_type=content_type)
