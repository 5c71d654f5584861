"""What is passed on to an archive that closes its connections when it likes."""

import asyncio

import httpx
import pytest

from deepgrow3d_app.errors import ServerFault
from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress
from deepgrow3d_app.serving.dicomweb.proxy import DicomWebProxy


class Archive:
    """Breaks the first connections off, and answers on the others."""

    def __init__(self, broken, error=httpx.RemoteProtocolError):
        self.asked = 0
        self._broken = broken
        self._error = error

    def answer(self, request):
        self.asked += 1
        if self.asked <= self._broken:
            raise self._error("Server disconnected without sending a response.")
        return httpx.Response(200, content=b"a slice")


def ask(archive, method):
    """The status of the answer, through the proxy."""
    proxy = DicomWebProxy(DicomWebAddress("http://archive/dicom-web", "", ""))
    proxy._client = httpx.AsyncClient(transport=httpx.MockTransport(archive.answer))

    async def asked():
        answer = await proxy.ask(method, "wado", "studies", "", {})
        await answer.aclose()
        await proxy.close()
        return answer.status_code

    return asyncio.run(asked())


@pytest.mark.parametrize("error", [httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError])
def test_a_slice_is_asked_for_again_where_the_connection_was_closed_meanwhile(error):
    assert ask(archive := Archive(1, error), "GET") == 200
    assert archive.asked == 2


@pytest.mark.parametrize(
    ("method", "archive", "asked"),
    [
        ("GET", Archive(2), 2),
        ("GET", Archive(2, httpx.ReadTimeout), 1),
        ("POST", Archive(1), 1),  # it may have been stored
    ],
)
def test_nothing_else_is_sent_twice(method, archive, asked):
    with pytest.raises(ServerFault, match="it does not answer"):
        ask(archive, method)
    assert archive.asked == asked
