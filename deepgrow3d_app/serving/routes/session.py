"""``/session``: images that a viewer sends for a while."""

from __future__ import annotations

import errno
import mimetypes
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, Request, UploadFile
from fastapi.responses import FileResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from deepgrow3d_app.errors import Cancelled, InvalidRequest
from deepgrow3d_app.serving.access import USER, FileWorkers, Served
from deepgrow3d_app.serving.archive import MAX_FILES
from deepgrow3d_app.serving.security.audit import tell_subject
from deepgrow3d_app.serving.uploads import Upload

ONE_ARCHIVE = "Send the files of one series, as one zip archive with uncompress=true."


class _SeriesRoute(APIRoute):
    """A route whose form may hold all files of a series: a long CT has more than the 1000 that Starlette takes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_series(request: Request) -> Response:
            await _read_form(request)  # the request keeps it, for FastAPI
            return await handle(request)

        return handle if self.body_field is None else handle_series


async def _read_form(request: Request) -> None:
    try:
        await request.form(max_files=MAX_FILES)
    except ClientDisconnect as error:
        raise Cancelled("The upload broke off. Send it again.") from error
    except HTTPException as error:
        if "Too many files" not in str(error.detail):
            raise
        raise InvalidRequest(f"The form holds more than the limit of {MAX_FILES} files. {ONE_ARCHIVE}") from error
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise InvalidRequest(f"The form holds more large files than the server may open. {ONE_ARCHIVE}") from error


router = APIRouter(prefix="/session", tags=["Session"], route_class=_SeriesRoute)


@router.put("/", dependencies=USER)
async def create_session(
    served: Served,
    workers: FileWorkers,
    files: Annotated[list[UploadFile], File(description="one volume, or the files of one DICOM series")],
    uncompress: Annotated[bool, Query(description="the one file is a zip archive")] = False,
    expiry: Annotated[int, Query(ge=0, description="seconds without use; 0 for the most that is allowed")] = 0,
) -> dict[str, Any]:
    """Open a session with an image."""
    uploads = [Upload.of(file) for file in files]
    session = await workers.run(served.viewer_sessions().add, uploads, expiry_s=expiry, uncompress=uncompress)
    tell_subject("session_id", session.session_id)
    return {"session_id": session.session_id, "session_info": session.to_json()}


@router.get("/{session_id}", dependencies=USER, response_model=None)
def get_session(
    served: Served, session_id: str, update_ts: bool = False, image: bool = False
) -> dict[str, Any] | FileResponse:
    """A session, or its image."""
    session = served.viewer_sessions().get(session_id, touch=update_ts)
    if not image:
        return session.to_json()
    if session.image.is_dir():
        raise InvalidRequest("The image of this session is a DICOM series, which cannot be downloaded as one file.")
    media_type = mimetypes.guess_type(session.image, strict=False)[0] or "application/octet-stream"
    return FileResponse(session.image, media_type=media_type, filename=session.image.name)


@router.delete("/{session_id}", dependencies=USER)
def remove_session(served: Served, session_id: str) -> dict[str, Any]:
    """Close a session."""
    return served.viewer_sessions().remove(session_id).to_json()
