"""A DICOMweb server's requests and answers, passed on: browsers reach it through this server alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Literal

import httpx

from deepgrow3d_app.errors import InvalidRequest, ServerFault
from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress
from deepgrow3d_app.serving.dicomweb.pacs import CONNECT_S
from deepgrow3d_app.serving.identifiers import shown

Service = Literal["qido", "wado", "stow"]

ASKED = ("accept", "accept-encoding", "content-type", "range", "if-none-match")
ANSWERED = ("content-type", "content-length", "content-encoding", "content-range", "etag", "warning", "location")
"""Headers that are passed on; credentials, cookies and what concerns one connection stay here."""
BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class DicomWebProxy:
    """Passes requests on to a DICOMweb server, with the credentials that this server has for it."""

    def __init__(self, address: DicomWebAddress) -> None:
        self._address = address
        self._client = httpx.AsyncClient(
            auth=httpx.BasicAuth(address.username, address.password) if address.username else None,
            timeout=httpx.Timeout(address.timeout_s, connect=CONNECT_S),
            headers={
                "accept-encoding": "identity"
            },  # unless the browser says otherwise: bodies are passed on as they come
            trust_env=False,
        )

    async def ask(
        self,
        method: str,
        service: Service,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> httpx.Response:
        """The server's answer, of which the body has not been read; whoever gets it closes it.

        Args:
            method: of HTTP.
            service: whose prefix is put before ``path``.
            path: below the root of the service.
            query: as it came, without the question mark.
            headers: of the browser's request; those of :data:`ASKED` are passed on.
            body: of the browser's request.

        Raises:
            InvalidRequest: a path that leads out of the service, or a query that is none.
            ServerFault: the server is away.
        """
        request = self._client.build_request(
            method,
            self._url(service, path, query),
            headers={name: headers[name] for name in ASKED if name in headers},
            content=body,
        )
        try:
            return await self._sent(request)
        except httpx.HTTPError as error:
            raise ServerFault(self._address.url, f"it does not answer ({type(error).__name__})") from error

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        """Sent twice where it can do no harm: a server may close an idle connection while it is used again.

        Orthanc does so after a second: of the slices that OHIF asks for after a pause, one would be missing.
        """
        try:
            return await self._client.send(request, stream=True)
        except BROKEN_OFF:
            if request.method != "GET":
                raise
            return await self._client.send(request, stream=True)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    def _url(self, service: Service, path: str, query: str) -> httpx.URL:
        parts = path.split("/")
        # What is still encoded, the other server might decode into a way out.
        if any(part in ("..", ".") for part in parts) or set(path) & set("\\%?#") or not path.isprintable():
            raise InvalidRequest(f"The path {shown(path)} leads out of the DICOMweb server. Send one below its root.")
        # Some versions of OHIF ask the search service for metadata, which the fetching service has.
        if service == "qido" and parts[-1] == "metadata":
            service = "wado"
        prefix = {
            "qido": self._address.qido_prefix,
            "wado": self._address.wado_prefix,
            "stow": self._address.stow_prefix,
        }[service]
        url = httpx.URL("/".join(part for part in (self._address.url, prefix) if part))
        try:
            return url.copy_with(path=f"{url.path.rstrip('/')}/{path}", query=query.encode("ascii") or None)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise InvalidRequest(f"The query {shown(query)} cannot be passed on. Encode it (RFC 3986).") from error


async def body_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body of ``answer`` as it comes, which is closed at its end or when nobody listens any more."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()
