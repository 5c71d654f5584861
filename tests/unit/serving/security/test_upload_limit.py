import anyio
import pytest
from fastapi import HTTPException

from deepgrow3d_app.serving.security.upload_limit import UploadLimit


def received(pieces, max_bytes, idle_s=60.0):
    """What an application behind the limit reads when the client sends ``pieces``."""
    bodies = []

    async def app(scope, receive, send):
        for _ in pieces:
            message = await receive()
            bodies.append(message["body"])

    async def scenario():
        sent = iter(pieces)

        async def receive():
            piece = next(sent)
            if piece is None:
                await anyio.sleep_forever()
            return {"type": "http.request", "body": piece, "more_body": True}

        async def send(message):
            raise AssertionError(message)

        await UploadLimit(app, max_bytes, idle_s)({"type": "http"}, receive, send)

    anyio.run(scenario)
    return bodies


def test_a_body_at_the_limit_passes():
    assert received([b"123", b"45"], max_bytes=5) == [b"123", b"45"]


def test_a_body_beyond_the_limit_does_not_whatever_its_header_said():
    with pytest.raises(HTTPException, match="413: The upload is larger than the limit of 4 bytes"):
        received([b"123", b"45"], max_bytes=4)


def test_a_client_that_stops_in_the_middle_is_not_waited_for():
    with pytest.raises(HTTPException, match=r"408: The request stopped in the middle for 0\.05 s"):
        received([b"123", None], max_bytes=5, idle_s=0.05)
