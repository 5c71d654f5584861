"""The one place where errors become HTTP answers: a status, and ``{"detail": reason}``."""

from __future__ import annotations

import errno
import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from monailabel.config import settings
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from deepgrow3d_app.errors import (
    Busy,
    Cancelled,
    CheckpointError,
    DeepGrow3DError,
    EngineError,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotSignedIn,
    OutOfMemory,
    ServerFault,
    Superseded,
    TrainingError,
)
from deepgrow3d_app.serving.identifiers import shown

logger = logging.getLogger(__name__)


class Fault(BaseModel):
    """Every answer that is none."""

    detail: str = Field(description="what is wrong, with the value, the bound and the remedy")


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault, "description": description}
    for status, description in (
        (400, "The request is at fault."),
        (401, "A token is needed, or the one that was sent is not good."),
        (403, "The caller may not do this, or not from there."),
        (404, "Something that was named does not exist."),
        (408, "The client stopped in the middle of the request, or is gone."),
        (409, "A newer request, or somebody else's, took the place of this one."),
        (413, "The upload is too large."),
        (422, "A parameter is missing or of another type."),
        (429, "Too much at once: Retry-After says when to try again."),
        (503, "Something that the server needs is not there now, or is damaged."),
        (507, "The server's disk is full or read-only."),
    )
}
"""How any route may answer beside its own way."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def answer_faults(api: FastAPI) -> None:
    """Make ``api`` answer errors as this module says; for what is not foreseen, see ``security.last_resort``."""
    api.add_exception_handler(DeepGrow3DError, _answer)
    api.add_exception_handler(MONAILabelException, _answer)
    api.add_exception_handler(RequestValidationError, _answer)
    api.add_exception_handler(OSError, _answer)
    api.add_exception_handler(HTTPException, _answer_routing)


def status_and_reason(error: Exception) -> tuple[HTTPStatus, str]:
    """How ``error`` is answered. What is not known here is a fault of ours, and its text stays in the log."""
    if isinstance(error, RequestValidationError):
        return HTTPStatus.UNPROCESSABLE_ENTITY, _validation_reason(error)
    if isinstance(error, InvalidInput):
        return HTTPStatus.BAD_REQUEST, str(error)
    if isinstance(error, NotSignedIn):
        return HTTPStatus.UNAUTHORIZED, str(error)
    if isinstance(error, NotAllowed):
        return HTTPStatus.FORBIDDEN, str(error)
    if isinstance(error, NotFound):
        return HTTPStatus.NOT_FOUND, str(error)
    if isinstance(error, Busy):
        return HTTPStatus.TOO_MANY_REQUESTS, str(error)
    if isinstance(error, Superseded):
        return HTTPStatus.CONFLICT, str(error)
    if isinstance(error, Cancelled):
        return HTTPStatus.REQUEST_TIMEOUT, str(error)
    if isinstance(error, OutOfMemory | CheckpointError | EngineError | TrainingError):
        return HTTPStatus.SERVICE_UNAVAILABLE, str(error)
    if isinstance(error, ServerFault):
        return HTTPStatus.BAD_GATEWAY, str(error)
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return HTTPStatus.NOT_FOUND, str(error.msg)
    if isinstance(error, MONAILabelException) and error.error == MONAILabelError.INVALID_INPUT:
        return HTTPStatus.BAD_REQUEST, str(error.msg)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return HTTPStatus.INSUFFICIENT_STORAGE, "The server's disk is full: nothing was saved. Make room and try again."
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return HTTPStatus.INSUFFICIENT_STORAGE, "The server's disk is read-only: nothing was saved. Make it writable."
    if isinstance(error, PermissionError):
        return HTTPStatus.SERVICE_UNAVAILABLE, "The server may not read or write one of its files. Its log says which."
    return HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed, and it is not your fault. Its log says where."


def refusal(error: Exception) -> JSONResponse:
    """The answer to a request that ``error`` ended."""
    status, reason = status_and_reason(error)
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, NotSignedIn):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"detail": reason}, status, headers)


async def _answer(request: Request, error: Exception) -> Response:
    status, reason = status_and_reason(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s %s", request.method, shown(request.url.path), exc_info=error)
    else:
        logger.info("%s %s: %d %s", request.method, shown(request.url.path), status, reason)
    if isinstance(error, NotSignedIn) and _is_page(request):
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{settings.MONAI_LABEL_API_STR}/login?{urlencode({'next': wanted})}", 303)
    return refusal(error)


def _is_page(request: Request) -> bool:
    """Whether a person follows a link, and not a program."""
    return request.method == "GET" and reads_pages(request)


def reads_pages(request: Request) -> bool:
    """Whether the answer is shown to a person."""
    return "text/html" in request.headers.get("accept", "")


async def _answer_routing(request: Request, error: Exception) -> Response:
    """Like FastAPI, but what says only that there is no such route also says where routes are listed."""
    if not isinstance(error, HTTPException):
        raise error
    reason = error.detail
    if reason == HTTPStatus(error.status_code).phrase and error.status_code in (404, 405):
        reason = f"There is no {request.method} {shown(request.url.path)}. GET /openapi.json lists what there is."
    return JSONResponse({"detail": reason}, error.status_code, error.headers)


def _validation_reason(error: RequestValidationError) -> str:
    """One sentence for each parameter that FastAPI refused: where it is, what was sent, what may be sent."""
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        sent = "" if fault["type"] == "missing" else f" is {shown(str(fault.get('input')))}"
        faults.append(f"{place}{sent}: {fault['msg']}")
    return "; ".join(faults) + "."
