"""Where a request carries its token: a header of programs, or a cookie of browsers."""

from __future__ import annotations

from starlette.requests import HTTPConnection

COOKIE = "deepgrow3d_token"


def token_of(connection: HTTPConnection) -> str | None:
    """The token of a request; ``None`` where it has none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return connection.cookies.get(COOKIE) or None
