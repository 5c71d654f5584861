"""The audit log: who asked for what, when, and what came of it. No voxels, no names of patients.

A line of JSON for each request, in a file for each day (UTC). Images, labels and sessions stand there by a hash of
their id, which may be a patient's name; ``hash_of`` finds the lines of an id that is known. Nothing is ever removed.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepgrow3d_app.serving.security.request_id import current_request

logger = logging.getLogger(__name__)

SUBJECTS = ("image", "label", "id", "session_id")
"""Parameters that name what a request is about."""

PLAIN = ("model", "strategy", "tag", "version", "output", "service")
"""Parameters that name no patient, and are written as they are where the server took them for good."""

DICOM_PARTS = re.compile(r"(?:^|/)(studies|series|instances)/([0-9.]+)")
"""What a path of the DICOMweb proxy names."""

UNHEARD = ("/health/", "/metrics", "/pages/", "/ohif/", "/status")
"""Paths that tell nothing of a patient, and are asked for all the time: written only where they were refused."""

CLIENT_IS_GONE = 499

_told: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("told", default=None)
"""What routes tell of the request that is answered now."""


def tell_subject(name: str, subject: str) -> None:
    """Say what a request turned out to be about, where its parameters do not: ``name`` is one of ``SUBJECTS``."""
    told = _told.get()
    if told is not None:
        told[name] = subject


def hash_of(subject: str) -> str:
    """How an image, label or session stands in the log."""
    return hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class AuditLog:
    """Appends lines to the file of the day; thread-safe.

    Args:
        folder: where the files are; ``None`` keeps none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        if folder is not None:  # with parents now only: where the studies' disk is gone, nothing must take its place
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)

    @property
    def is_kept(self) -> bool:
        """Whether anything is written at all."""
        return self._folder is not None

    def write(self, record: Mapping[str, object]) -> None:
        """Append ``record``. A log that cannot be written is told in the server's own, and stops no work."""
        if self._folder is None:
            return
        now = datetime.datetime.now(datetime.timezone.utc)
        line = json.dumps({"time": now.isoformat(timespec="milliseconds"), **record}, ensure_ascii=True) + "\n"
        file = self._folder / f"audit-{now.date().isoformat()}.jsonl"
        try:
            with self._lock:
                self._folder.mkdir(exist_ok=True)  # where somebody cleared it away; nothing around it
                descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(descriptor, line.encode("ascii"))
                finally:
                    os.close(descriptor)
        except OSError:
            logger.exception("The audit log cannot be written; this is missing in it: %s", line.strip())


class Audit:
    """ASGI middleware.

    Args:
        app: what is behind it.
        log: where the lines go.
        prefix: of the API's paths.
    """

    def __init__(self, app: ASGIApp, *, log: AuditLog, prefix: str = "") -> None:
        self._app = app
        self._log = log
        self._unheard = tuple(prefix + path for path in UNHEARD)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, and write down what came of it."""
        if scope["type"] != "http" or not self._log.is_kept:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0
        told: dict[str, str] = {}  # changed in place: a route in a thread has a copy of the context
        token = _told.set(told)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            _told.reset(token)
            is_heard = status >= HTTPStatus.BAD_REQUEST or not scope["path"].startswith(self._unheard)
            if is_heard:
                self._log.write(_record(scope, told, status or CLIENT_IS_GONE, time.perf_counter() - started))


def _record(scope: Scope, told: Mapping[str, str], status: int, seconds: float) -> dict[str, object]:
    caller = scope.get("state", {}).get("caller")
    identity = None if caller is None else caller.identity
    given = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
    given.update({name: str(value) for name, value in scope.get("path_params", {}).items()})
    subjects = {name: given[name] for name in SUBJECTS if given.get(name)}
    subjects.update(DICOM_PARTS.findall(given.get("path", "")))
    subjects.update(told)
    is_good = status < HTTPStatus.BAD_REQUEST
    return {
        "request": current_request.get(),
        "who": None if identity is None else identity.name,
        "role": None if identity is None else identity.role.title,
        "from": (scope.get("client") or ("", 0))[0],
        "method": scope["method"],
        "route": getattr(scope.get("route"), "path", None),
        "subjects": {name: hash_of(subject) for name, subject in subjects.items()},
        **{name: given[name] for name in PLAIN if is_good and given.get(name)},
        "status": status,
        "seconds": round(seconds, 3),
    }
