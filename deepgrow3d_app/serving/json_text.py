"""JSON that clients send inside form fields, parsed strictly: what comes in must be able to go out again."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.identifiers import shown

MAX_DEPTH = 32


def parse_object(text: str, name: str) -> dict[str, Any]:
    """The JSON object that ``text`` holds.

    NaN, Infinity and lone surrogates are refused although Python's parser takes them: they cannot be
    written back as JSON, so a datastore that kept them could not be listed any more.

    Args:
        text: what the client sent.
        name: what messages call it, for example "params".

    Raises:
        InvalidRequest: not JSON, not an object, or nested deeper than ``MAX_DEPTH``.
    """

    def refuse_constant(constant: str) -> NoReturn:
        raise InvalidRequest(f"'{name}' holds {constant}, which is no JSON number. Send finite numbers.")

    try:
        value = json.loads(text, parse_constant=refuse_constant)
        if not isinstance(value, dict):
            raise InvalidRequest(f"'{name}' is {shown(text)}: it must be a JSON object, such as {{}}.")
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        if _depth(value) > MAX_DEPTH:
            raise RecursionError
    except RecursionError as error:
        raise InvalidRequest(f"'{name}' is nested deeper than {MAX_DEPTH} levels. Send a flatter object.") from error
    except ValueError as error:
        raise InvalidRequest(f"'{name}' is {shown(text)}, which is no valid JSON ({error}). Send an object.") from error
    return value


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
