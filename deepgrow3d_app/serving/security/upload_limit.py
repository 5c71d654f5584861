"""Refuses request bodies that are too large, before they fill the disk, and those that never come to an end."""

from __future__ import annotations

import anyio
from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_BYTES = 1 << 16
"""Enough for any token and password."""


class UploadLimit:
    """ASGI middleware.

    Args:
        app: what is behind it.
        max_bytes: a body beyond that is answered with 413, whatever its header says.
        idle_s: a client that sends nothing for so long, in the middle of its request, is answered with 408.
        open_paths: where bodies are taken in of those who have not signed in: up to ``OPEN_BYTES`` of them.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, idle_s: float, open_paths: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._open_paths = open_paths
        self._max_bytes = max_bytes
        self._idle_s = idle_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what the client sends, and wait for it no longer than that."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = min(self._max_bytes, OPEN_BYTES) if scope.get("path") in self._open_paths else self._max_bytes
        received = 0
        is_complete = False

        async def counted() -> Message:
            nonlocal received, is_complete
            if is_complete:  # what comes now says only that the client is gone
                return await receive()
            try:
                with anyio.fail_after(self._idle_s):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(
                    408, f"The request stopped in the middle for {self._idle_s:g} s. Send it again."
                ) from error
            received += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if received > max_bytes:
                raise HTTPException(
                    413, f"The upload is larger than the limit of {max_bytes} bytes. Crop or compress the image."
                )
            return message

        await self._app(scope, counted, send)
