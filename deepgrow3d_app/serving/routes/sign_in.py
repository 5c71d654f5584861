"""``/login`` for browsers, ``/auth`` for 3D Slicer: where a token is shown for the first time."""

from __future__ import annotations

import html
import re
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from monailabel.config import settings

from deepgrow3d_app.errors import NotAllowed, NotFound, NotSignedIn, ServerFault
from deepgrow3d_app.serving.access import USER
from deepgrow3d_app.serving.faults import reads_pages, status_and_reason
from deepgrow3d_app.serving.security.bearer import COOKIE, token_of
from deepgrow3d_app.serving.security.identity import Door

router = APIRouter(tags=["Auth"])

DAY_S = 24 * 3600
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*")

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>DeepGrow 3D: sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26em; margin: 15vh auto; padding: 0 1em;
color-scheme: light dark }} input, button {{ font: inherit; width: 100%; box-sizing: border-box; padding: .5em;
margin: .3em 0 1em }} [role=alert] {{ color: #c33 }}</style>
<h1>DeepGrow 3D</h1>{fault}
<form method="post" action="{prefix}/login"><input type="hidden" name="next" value="{next}">
<label>Your token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Sign in</button></form><p>Whoever runs this server gives you one. Not for diagnostic use.</p></html>"""


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


def _checked_next(path: str) -> str:
    """``path`` where it is one of this server, else its first page: nobody is sent elsewhere."""
    return path if _LOCAL_PATH.fullmatch(path) and not set(path) & set("\"'<>") else f"{settings.MONAI_LABEL_API_STR}/"


def _page(next_path: str, fault: str = "", status: int = 200) -> Response:
    alert = f'<p role="alert">{fault}</p>' if fault else ""
    content = PAGE.format(next=html.escape(_checked_next(next_path)), fault=alert, prefix=settings.MONAI_LABEL_API_STR)
    return HTMLResponse(content, status, {"content-security-policy": POLICY})


@router.get("/login", include_in_schema=False, response_class=HTMLResponse)
def login_page(next: str = "") -> Response:
    """Ask for a token."""
    return _page(next)


@router.post(
    "/login",
    include_in_schema=False,
    response_class=RedirectResponse,
    status_code=303,
    responses={401: {"description": "The token is not good.", "content": {"text/html": {}, "application/json": {}}}},
)
def log_in(request: Request, token: Annotated[str, Form()], next: Annotated[str, Form()] = "") -> Response:
    """Remember the token in a cookie that no script can read, and no other site can send along."""
    door = _door(request)
    if door.is_open:
        return RedirectResponse(_checked_next(next), 303)
    try:
        door.identify(token)
    except NotSignedIn:
        return _page(next, "That is no token of this server, or it was revoked.", 401)
    except (NotAllowed, ServerFault) as error:
        if not reads_pages(request):
            raise
        status, reason = status_and_reason(error)
        return _page(next, html.escape(reason), status)
    answer = RedirectResponse(_checked_next(next), 303)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, max_age=DAY_S, httponly=True, samesite="strict", secure=is_secure)
    return answer


@router.post("/logout", include_in_schema=False, response_class=RedirectResponse, status_code=303)
def log_out() -> Response:
    """Forget the token."""
    answer = RedirectResponse(f"{settings.MONAI_LABEL_API_STR}/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


@router.get("/auth/", responses={404: {"description": "nobody has to sign in"}})
def sign_in_needed(request: Request) -> dict[str, Any]:
    """Whether callers sign in; 404 where they do not, as 3D Slicer expects it."""
    if _door(request).is_open:
        raise NotFound("Nobody signs in here: this server answers without a token.")
    client, realm = settings.MONAI_LABEL_AUTH_CLIENT_ID, settings.MONAI_LABEL_AUTH_REALM_URI
    is_realm = settings.MONAI_LABEL_AUTH_ENABLE
    return {"enabled": True, "client_id": client if is_realm else "deepgrow3d", "realm": realm if is_realm else ""}


@router.post("/auth/token")
def exchange(
    request: Request, username: Annotated[str, Form()] = "", password: Annotated[str, Form()] = ""
) -> dict[str, Any]:
    """Sign in as 3D Slicer does: with name and password of the realm, or with any name and the token as password."""
    if settings.MONAI_LABEL_AUTH_ENABLE:
        from deepgrow3d_app.serving.security.keycloak import token_for

        return token_for(username, password)
    if _door(request).is_open:
        return {"access_token": None, "token_type": None}
    _door(request).identify(password)
    return {"access_token": password, "token_type": "bearer"}


@router.get("/auth/token/valid", dependencies=USER)
def valid_token(request: Request) -> dict[str, Any]:
    """Who the caller is."""
    identity = request.state.caller.identity
    return {
        "username": identity.name or "everybody",
        "roles": [identity.role.title],
        "signed_in": token_of(request) is not None,
    }
