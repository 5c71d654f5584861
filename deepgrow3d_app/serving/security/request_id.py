"""A name for every request: in its answer, in the log, in the audit log."""

from __future__ import annotations

import contextvars
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
current_request: contextvars.ContextVar[str] = contextvars.ContextVar("current_request", default="")
"""The id of the request that is answered now, "" outside of one."""

_ALLOWED = re.compile(r"[A-Za-z0-9_-]{8,64}")


class RequestId:
    """ASGI middleware: takes the id that a proxy gave, or makes one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        name = given if _ALLOWED.fullmatch(given) else uuid.uuid4().hex
        token = current_request.set(name)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            current_request.reset(token)
