"""``/ohif``: the viewer that MONAI Label's package carries, set up for this server.

It is built for this path and knows no other, so the prefix of the API is not put before it.
"""

from __future__ import annotations

import mimetypes
import re
from functools import cache
from pathlib import Path
from typing import Any

import monailabel.endpoints
from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse, Response
from monailabel.config import settings

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.serving.access import USER

router = APIRouter(prefix="/ohif", tags=["OHIF"], include_in_schema=False)

BUILT = Path(monailabel.endpoints.__file__).parent / "static" / "ohif"
PAGE = "index.html"
OURS = Path(__file__).parents[1] / "ohif_page"
SAVING = '<script defer src="/ohif/deepgrow3d/saving.js"></script></head>'
HASHED = (".bundle.", ".wasm")
"""Parts of names that change with the content."""
POLICY = "; ".join(
    (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:",  # its styles ask a server of fonts otherwise
        "connect-src * blob: data:",  # the panel may be pointed at another server
        "frame-ancestors 'self'",
    )
)
SCRIPT: dict[int | str, dict[str, Any]] = {200: {"description": "a script", "content": {"text/javascript": {}}}}
_ELSEWHERE = re.compile(r'<link [^>]*href="https?://[^>]*>')


@router.get("", dependencies=USER, response_class=RedirectResponse, status_code=307)
def without_slash() -> RedirectResponse:
    """OHIF's router knows its pages by paths below ``/ohif/``."""
    return RedirectResponse("/ohif/")


@router.get("/app-config.js", dependencies=USER, response_class=Response, responses=SCRIPT)
def set_up() -> Response:
    """OHIF's settings: the studies behind this server, and this server as the one that answers clicks."""
    content = (OURS / "set_up.js").read_text(encoding="utf-8").replace("{{ROOT}}", settings.MONAI_LABEL_API_STR)
    return Response(content, media_type="text/javascript", headers={"cache-control": "no-cache"})


@router.get("/deepgrow3d/saving.js", dependencies=USER, response_class=Response, responses=SCRIPT)
def saving() -> FileResponse:
    """Two buttons that the MONAI Label panel lacks."""
    return FileResponse(OURS / "saving.js", media_type="text/javascript", headers={"cache-control": "no-cache"})


@router.get(
    "/{path:path}",
    dependencies=USER,
    response_class=Response,
    responses={200: {"description": "a file", "content": {"*/*": {}}}},
)
def viewer(path: str) -> Response:
    """A file of the viewer; its page for everything else, whose script knows the rest."""
    if not (BUILT / PAGE).is_file():
        raise NotFound("This installation of MONAI Label has no OHIF in it. Install the package from PyPI.")
    name = path if path in _files() else PAGE
    if name == PAGE and Path(path).suffix in (".js", ".css", ".wasm", ".map"):
        raise NotFound(f"There is no file '{path[:80]}' in OHIF.")
    if name == PAGE:
        headers = {"cache-control": "no-cache", "content-security-policy": POLICY}
        return Response(_page(), media_type="text/html", headers=headers)
    keeping = "public, max-age=31536000, immutable" if _is_hashed(name) else "no-cache"
    headers = {"cache-control": keeping, "content-security-policy": POLICY}  # a worker's script brings its own
    return FileResponse(BUILT / name, media_type=mimetypes.guess_type(name)[0], headers=headers)


@cache
def _files() -> frozenset[str]:
    """All files of the viewer, by their paths below it: what is not listed is not sent."""
    return frozenset(file.relative_to(BUILT).as_posix() for file in BUILT.rglob("*") if file.is_file())


@cache
def _page() -> str:
    """The viewer's page with our script, and without its links to a server of fonts."""
    page = _ELSEWHERE.sub("", (BUILT / PAGE).read_text(encoding="utf-8"))
    return page.replace("</head>", SAVING, 1)


def _is_hashed(name: str) -> bool:
    return any(part in name for part in HASHED)
