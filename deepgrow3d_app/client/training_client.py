"""Trainings and pre-annotations of a running server, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import requests

from deepgrow3d_app.client.http import HttpSession, reason_of, refuse_strangers, without_user
from deepgrow3d_app.errors import Busy, InvalidRequest, NotFound, ServerFault, TrainingError

ANSWER_S = 60


class TrainingClient:
    """Talks to one server.

    Args:
        url: its address, as printed when it starts.
        token: whose calls these are; "" where nobody has to sign in.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self._url = without_user(url)
        self._http = HttpSession(token)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that ``METHOD path`` answers.

        Raises:
            InvalidRequest, NotFound, Busy: the server refuses; the message is its own.
            ServerFault: it does not answer, or is another program.
            TrainingError: it answers that it cannot, for want of room on its disk for one.
        """
        try:
            response = self._http.request(method, self._url + path, json=body, timeout=ANSWER_S)
            content = response.json() if response.ok else None
        except requests.exceptions.JSONDecodeError as error:
            raise ServerFault(self._url, "its answer is no JSON") from error
        except requests.exceptions.InvalidJSONError as error:  # what was to be sent
            raise InvalidRequest(f"This cannot be asked for: {error}") from error
        except requests.RequestException as error:
            raise ServerFault(self._url, str(error)) from error
        if response.ok:
            return content
        refuse_strangers(response)
        reason = reason_of(response)
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise NotFound(reason)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise Busy(reason)
        if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise InvalidRequest(reason)
        raise TrainingError(f"The server at '{self._url}' cannot do it now. {reason}")
