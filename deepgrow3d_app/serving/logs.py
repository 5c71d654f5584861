"""The server's own log, a line for each event, with the request that it belongs to."""

from __future__ import annotations

import logging
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from deepgrow3d_app.serving.security.request_id import current_request

TALKATIVE = ("monailabel", "highdicom", "dicomweb_client", "httpx")


class _OfRequest(logging.Filter):
    """Gives every record the id of the request that is answered, ``-`` outside of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request = current_request.get() or "-"
        return True


def set_up_logs(form: Literal["text", "json"]) -> None:
    """Send the log to stderr: ``text`` for people, ``json``, one object a line, for programs."""
    handler = logging.StreamHandler()
    handler.addFilter(_OfRequest())
    if form == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}{request}",
                style="{",
                timestamp="time",
                rename_fields={"levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(request).8s]: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
