"""How a server is called over HTTP: with whose token, through which proxy, and what refusals mean."""

from __future__ import annotations

import ipaddress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.auth import AuthBase

from deepgrow3d_app.client import TOKEN_VARIABLE
from deepgrow3d_app.errors import InvalidRequest


class HttpSession(requests.Session):
    """Calls servers as the environment says (certificates, proxies), but this machine itself without a proxy.

    Args:
        token: whose calls these are; "" where nobody has to sign in.
    """

    def __init__(self, token: str = "") -> None:
        super().__init__()
        self.auth = _Bearer(token)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """What the environment adds to a call."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        if _is_this_machine(str(url)):
            settings["proxies"].clear()
        return settings


class _Bearer(AuthBase):
    """Sends the token, if there is one; in any case, no password of a ``.netrc`` file."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, call: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            call.headers["Authorization"] = f"Bearer {self._token}"
        return call


def without_user(url: str) -> str:
    """``url`` without a name, a password or a last slash: it is printed, and written into results."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def refuse_strangers(answer: requests.Response) -> None:
    """Explain to whoever may not what he asks for, how he may.

    Raises:
        InvalidRequest: the answer is 401 or 403.
    """
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        raise InvalidRequest(
            f"The server asks who calls. Set the variable {TOKEN_VARIABLE} to your token, which whoever runs the "
            "server makes with 'deepgrow3d token add'."
        )
    if answer.status_code == HTTPStatus.FORBIDDEN:
        raise InvalidRequest(f"The server does not let you do that: {reason_of(answer)}")


def reason_of(answer: requests.Response) -> str:
    """What the server says of a refusal."""
    try:
        content = answer.json()
    except ValueError:
        return answer.text[:300] or str(answer.reason)
    return str(content.get("detail", answer.reason) if isinstance(content, dict) else answer.reason)


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
