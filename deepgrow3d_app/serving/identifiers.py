"""One grammar for every name that a client may choose and that becomes part of a file name."""

from __future__ import annotations

import re
import uuid

from deepgrow3d_app.errors import InvalidRequest, NotFound

MAX_BYTES = 128
_ALLOWED = re.compile(r"[\w.+=@()\[\], :-]+")  # \w: letters and digits of any script, and _
_REMEDY = (
    "Use letters, digits, spaces and . _ - + = @ , : ( ) [ ]; it may not begin with a dot or a space, end with one, "
    f"hold two dots in a row, or be longer than {MAX_BYTES} bytes."
)


def checked_name(name: str, what: str) -> str:
    """``name`` itself, fit to be a file name on its own: it cannot leave a folder or hide in it.

    Args:
        name: an image id, or the tag of a label.
        what: what messages call it.

    Raises:
        InvalidRequest: it is outside the grammar.
    """
    if (
        not _ALLOWED.fullmatch(name)
        or name[0] in ". "
        or name[-1] in ". "
        or ".." in name
        or len(name.encode()) > MAX_BYTES
    ):
        raise InvalidRequest(f"{shown(name)} cannot be {what}. {_REMEDY}")
    return name


def checked_session_id(session_id: str) -> str:
    """``session_id`` in the form that folders are named after.

    Raises:
        NotFound: it is no UUID, so no session can have it.
    """
    try:
        parsed = str(uuid.UUID(session_id))
    except ValueError:
        parsed = None
    if parsed is None or parsed != session_id.lower():
        raise NotFound(f"There is no session {shown(session_id)}. Upload the image again with PUT /session/.")
    return parsed


def shown(text: str, limit: int = 80) -> str:
    """``text`` in quotes, short and on one line, for messages."""
    return repr(text if len(text) <= limit else text[:limit] + "...")
