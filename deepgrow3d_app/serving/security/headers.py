"""What every answer says to browsers: take it for what it is, frame it nowhere else, keep no copy."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "SAMEORIGIN",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
UNLESS_SET = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
"""Pages and their parts, which hold nobody's data, say otherwise themselves."""

TLS_ONLY = {"strict-transport-security": "max-age=31536000"}


class SecurityHeaders:
    """ASGI middleware.

    Args:
        app: what is behind it.
        shares: whether pages elsewhere may read answers, because the operator named some.
    """

    def __init__(self, app: ASGIApp, *, shares: bool) -> None:
        self._app = app
        self._always = {name: value for name, value in ALWAYS.items() if not (shares and name.startswith("cross-"))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fixed = self._always | (TLS_ONLY if scope.get("scheme") == "https" else {})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(fixed)
                for name, value in UNLESS_SET.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
