"""``/proxy/dicom``: the DICOMweb server behind this one, for OHIF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.serving.access import ANNOTATOR, USER, FileWorkers, Served, SignedIn
from deepgrow3d_app.serving.dicomweb.proxy import ANSWERED, DicomWebProxy, Service, body_of
from deepgrow3d_app.serving.dicomweb.store_request import StoreRequest

router = APIRouter(prefix="/proxy/dicom", include_in_schema=False)


def _proxy(request: Request) -> DicomWebProxy:
    proxy: DicomWebProxy | None = request.app.state.dicomweb_proxy
    if proxy is None:
        raise NotFound(
            "The studies are a folder, which OHIF cannot open. Serve those of a DICOMweb server "
            "(`deepgrow3d serve --studies http://127.0.0.1:8042/dicom-web`), or try `make ohif`."
        )
    return proxy


Proxy = Annotated[DicomWebProxy, Depends(_proxy)]


@router.get("/{service}/{path:path}", dependencies=USER)
async def fetch(proxy: Proxy, request: Request, service: Service, path: str) -> StreamingResponse:
    """Search (qido) or fetch (wado)."""
    return _passed_on(await proxy.ask("GET", service, path, request.url.query, request.headers))


@router.post("/{service}/{path:path}", dependencies=ANNOTATOR)
async def store(
    proxy: Proxy,
    served: Served,
    workers: FileWorkers,
    caller: SignedIn,
    request: Request,
    service: Service,
    path: str,
) -> StreamingResponse:
    """Store: what a viewer saves. A segmentation of one of the studies becomes its final label."""
    sent = StoreRequest.parse(request.headers.get("content-type", ""), await request.body())
    studies = served.dicomweb_studies()
    labels = [await workers.run(studies.label_in, file) for file in sent.files]
    files = [file if label is None else label.content for file, label in zip(sent.files, labels, strict=True)]
    content_type, body = StoreRequest(files).encoded()
    headers = {**request.headers, "content-type": content_type}
    answer = await proxy.ask("POST", "stow", path, request.url.query, headers, body)
    if answer.status_code == httpx.codes.OK:
        for label in labels:
            if label is not None:
                await workers.run(studies.adopt, label, caller.name)
    return _passed_on(answer)


def _passed_on(answer: httpx.Response) -> StreamingResponse:
    headers: Mapping[str, str] = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
    return StreamingResponse(body_of(answer), answer.status_code, headers)
