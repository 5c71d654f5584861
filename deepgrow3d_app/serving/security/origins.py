"""Refuses what other people's web pages and machines send, before any route sees it.

A browser sends a form to any address that a page names, also to a server on the user's own machine; that its page
cannot read the answer does not undo what was written. And a name that is made to point at this machine (DNS rebinding)
would make it the page's own server. Both show in the headers ``Origin`` and ``Host``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from deepgrow3d_app.errors import NotAllowed
from deepgrow3d_app.serving.faults import refusal
from deepgrow3d_app.serving.identifiers import shown

READING = ("GET", "HEAD", "OPTIONS")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class OriginGuard:
    """ASGI middleware.

    Args:
        app: what is behind it.
        origins: of pages elsewhere that may call, such as ``https://viewer.example``.
        hosts: names that this server may be called by; ``None`` for any.
        is_local: whether only this machine may call at all, because nobody signs in.
    """

    def __init__(
        self, app: ASGIApp, *, origins: Collection[str], hosts: Collection[str] | None, is_local: bool
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = None if hosts is None else frozenset(hosts)
        self._is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the request's headers and at where it comes from."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except NotAllowed as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._is_local and not is_loopback((scope.get("client") or ("", 0))[0]):
            raise NotAllowed(
                "This server asks nobody to sign in, so that it answers only the machine that it runs on. Start it "
                "with tokens (--tokens FILE), with TLS, or with --insecure."
            )
        host = headers.get("host", "")
        name = _name_of(f"//{host}")
        if self._hosts is not None and name not in self._hosts:
            raise NotAllowed(
                f"This server is not called {shown(name)}. Use an address that it has, or name that one in "
                "DEEPGROW3D_HOSTS."
            )
        origin = headers.get("origin")
        if origin is None or scope["method"] in READING or origin in self._origins:
            return
        if origin.partition("://")[2].lower() != host.lower():
            raise NotAllowed(
                f"A page of {shown(origin)} may not change anything here. Whoever runs this server can name it in "
                "MONAI_LABEL_CORS_ORIGINS."
            )


def _name_of(address: str) -> str:
    """The host's name in ``address``; "" where there is none."""
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:  # half a bracket
        return ""


def is_loopback(address: str) -> bool:
    """Whether ``address`` is of this machine; "" is: sockets that are files have no other."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return not address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
