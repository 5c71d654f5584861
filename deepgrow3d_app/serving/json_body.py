"""JSON that clients send as the body of a request, parsed as strictly as that in form fields."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Body, Depends, Request

from deepgrow3d_app.serving.json_text import parse_object


async def _checked(request: Request, body: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
    if body is None:
        return {}
    sent = await request.body()
    # As leniently as the parser that made ``body`` of it: what cannot be written again is refused by the strict one.
    return parse_object(sent.decode(json.detect_encoding(sent), "surrogatepass"), "body")


JsonBody = Annotated[dict[str, Any], Depends(_checked)]
"""A JSON object; {} where nothing is sent. InvalidRequest where it cannot be kept: see :mod:`json_text`."""
