"""``/``, ``/try`` and ``/docs``: the server's own pages, built from the folder ``web``."""

from __future__ import annotations

import mimetypes
from functools import partial
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.serving.access import USER, ClickLine, Measured, Served
from deepgrow3d_app.serving.status import Status, status_of

router = APIRouter()

BUILT = Path(__file__).parents[3] / "web" / "dist"
PAGES = {"/": "index.html", "/try": "try.html", "/docs": "docs.html"}
POLICY = "default-src 'self' 'unsafe-inline' data: blob:; script-src 'self' 'wasm-unsafe-eval' blob:"
"""Nothing is loaded from elsewhere, and no study is sent there."""
NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>DeepGrow 3D</title>
<body style="font: 16px/1.5 sans-serif; max-width: 40em; margin: 3em auto">
<h1>DeepGrow 3D answers</h1>
<p>Its pages are not built yet: run <code>make web</code> where it is installed, then reload.
3D Slicer, scripts and (for studies on a DICOMweb server) <a href="/ohif/">OHIF</a> do not need them.
<a href="info/">What is served</a>, <a href="openapi.json">the API</a>.</p>
<p>Not for diagnostic use.</p></body></html>"""


@router.get("/status", dependencies=USER, tags=["App"])
def status(served: Served, queue: ClickLine, metrics: Measured) -> Status:
    """The state of the server: model, studies, clicks, training."""
    return status_of(served, queue, metrics)


def _page(name: str) -> Response:
    headers = {"cache-control": "no-cache", "content-security-policy": POLICY}
    if not (BUILT / name).is_file():
        return HTMLResponse(NOT_BUILT, headers=headers)
    return FileResponse(BUILT / name, media_type="text/html", headers=headers)


for path, file in PAGES.items():
    router.add_api_route(path, partial(_page, file), include_in_schema=False, response_class=HTMLResponse)


@router.get(
    "/pages/{name}",
    include_in_schema=False,
    response_class=FileResponse,
    responses={200: {"description": "a file", "content": {"*/*": {}}}},
)
def part(name: str) -> FileResponse:
    """A script or style of the pages."""
    known = {file.name for file in BUILT.iterdir()} if BUILT.is_dir() else set()
    if name not in known:
        raise NotFound(f"There is no part {name[:80]!r} of the pages. Build them again with `make web`.")
    headers = {"cache-control": "no-cache", "content-security-policy": POLICY}  # a worker's script brings its own
    return FileResponse(BUILT / name, media_type=mimetypes.guess_type(name)[0], headers=headers)
