"""What nobody foresaw is an answer, too: with the request's id, in the log, in the audit log."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepgrow3d_app.serving.faults import refusal
from deepgrow3d_app.serving.identifiers import shown

logger = logging.getLogger(__name__)


class LastResort:
    """ASGI middleware: an error that comes this far is a fault of ours, and is answered with 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer where nothing was answered yet."""
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or has_begun:
                raise
            logger.exception("%s %s", scope["method"], shown(scope["path"]))
            await refusal(error)(scope, receive, send)
