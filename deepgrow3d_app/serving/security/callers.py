"""Finds out who calls, and how often."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from http import HTTPStatus

import anyio.to_thread
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepgrow3d_app.errors import Busy, DeepGrow3DError, NotSignedIn
from deepgrow3d_app.serving.faults import refusal
from deepgrow3d_app.serving.security.bearer import COOKIE, token_of
from deepgrow3d_app.serving.security.identity import Door, Identity
from deepgrow3d_app.serving.security.origins import READING

FAILURES_PER_MINUTE = 20
"""Tokens and passwords that one address may get wrong; who has a good token is not kept out by others who have none."""

SIGN_IN = ("/login", "/logout", "/auth/token")
"""The paths at which a token is shown for the first time."""

WHO_CALLS = "This server asks who calls. Send a token as 'Authorization: Bearer TOKEN', or sign in."


@dataclass(slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        identity: ``None`` where nobody signed in.
        fault: why a token that was sent is not good.
        address: where the request comes from.
    """

    identity: Identity | None
    fault: DeepGrow3DError | None
    address: str


class Callers:
    """ASGI middleware: leaves a :class:`Caller` in the request's state.

    Args:
        app: what is behind it.
        door: tells callers apart.
        requests_per_minute: of one caller; 0 for any number.
        prefix: of all paths.
    """

    def __init__(self, app: ASGIApp, *, door: Door, requests_per_minute: int, prefix: str = "") -> None:
        self._app = app
        self._door = door
        self._sign_in = frozenset(prefix + path for path in SIGN_IN)
        self._rates = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._allowed = RateLimitItemPerMinute(requests_per_minute) if requests_per_minute else None
        self._failures = RateLimitItemPerMinute(FAILURES_PER_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Identify, count, pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        signs_in = scope["method"] == "POST" and scope["path"] in self._sign_in
        try:
            caller = scope.setdefault("state", {})["caller"] = await self._caller(scope)
            if signs_in:
                self._check_failures(caller.address)
            elif caller.identity is None and scope["method"] not in READING:
                raise caller.fault or NotSignedIn(WHO_CALLS)  # before its body is taken in
        except DeepGrow3DError as error:
            await refusal(error)(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.UNAUTHORIZED:
                self._rates.hit(self._failures, "failures", caller.address)
            await send(message)

        await self._app(scope, receive, watched if signs_in else send)

    async def _caller(self, scope: Scope) -> Caller:
        connection = HTTPConnection(scope)
        address = connection.client.host if connection.client else ""
        caller = Caller(None, None, address)
        token = token_of(connection)
        if self._door.is_open:
            caller.identity = self._door.identify(None)
        elif token is not None:
            try:
                caller.identity = await anyio.to_thread.run_sync(self._door.identify, token)
            except DeepGrow3DError as error:
                caller.fault = error
                if isinstance(error, NotSignedIn) and token != connection.cookies.get(COOKIE):  # a browser's old one
                    self._check_failures(address)
                    self._rates.hit(self._failures, "failures", address)
        who = caller.identity.name if caller.identity and caller.identity.name else f"@{address}"
        if self._allowed is not None and not self._rates.hit(self._allowed, "requests", who):
            raise self._too_many(self._allowed, "requests", who, "requests came")
        return caller

    def _check_failures(self, address: str) -> None:
        if not self._rates.test(self._failures, "failures", address):
            raise self._too_many(self._failures, "failures", address, "wrong tokens came")

    def _too_many(self, allowed: RateLimitItem, kind: str, who: str, what: str) -> Busy:
        reset_at = self._rates.get_window_stats(allowed, kind, who).reset_time
        return Busy(
            f"More than {allowed.amount} {what} from you within a minute. Wait a moment.",
            retry_after_s=math.ceil(reset_at - time.time()),
        )
