"""Trainings and pre-annotations of a running server, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import requests

from deepgrow3d_app.errors import Busy, InvalidRequest, NotFound, ServerFault

ANSWER_S = 60


class TrainingClient:
    """Talks to one server.

    Args:
        url: its address, as printed when it starts.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that ``METHOD path`` answers.

        Raises:
            InvalidRequest, NotFound, Busy: the server refuses; the message is its own.
            ServerFault: it does not answer as it should.
        """
        try:
            response = requests.request(method, self._url + path, json=body, timeout=ANSWER_S)
            content = response.json()
        except (requests.RequestException, ValueError) as error:
            raise ServerFault(self._url, str(error)) from error
        if response.ok:
            return content
        reason = content.get("detail", response.reason) if isinstance(content, dict) else response.reason
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise NotFound(reason)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise Busy(reason)
        if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise InvalidRequest(str(reason))
        raise ServerFault(self._url, str(reason))
