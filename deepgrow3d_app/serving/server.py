"""The ASGI application: ``uvicorn deepgrow3d_app.serving.server:app``, or MONAI Label's ``--uvicorn_app``.

``app`` is built when it is first asked for, from MONAI Label's settings (app folder, studies).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance

from deepgrow3d_app import __version__
from deepgrow3d_app.errors import DeepGrow3DError, NotFound
from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.click_queue import ClickQueue
from deepgrow3d_app.serving.dicomweb.proxy import DicomWebProxy
from deepgrow3d_app.serving.faults import DOCUMENTED, answer_faults
from deepgrow3d_app.serving.metrics import Metrics
from deepgrow3d_app.serving.routes import (
    activelearning,
    batch,
    datastore,
    health,
    infer,
    info,
    model,
    ohif,
    pages,
    proxy,
    session,
    sign_in,
    train,
)
from deepgrow3d_app.serving.routes import metrics as metrics_route
from deepgrow3d_app.serving.security.around import secure
from deepgrow3d_app.serving.workers import Workers

logger = logging.getLogger(__name__)

ROUTES = (
    info,
    infer,
    batch,
    datastore,
    session,
    activelearning,
    model,
    train,
    metrics_route,
    proxy,
    pages,
    health,
    sign_in,
)

FILE_THREADS = 4
CLEANUP_EVERY_S = 60


def build(served: DeepGrow3DApp) -> FastAPI:
    """The HTTP server of ``served``."""
    api = FastAPI(
        title="DeepGrow 3D",
        version=__version__,
        description="Click-driven 3-D segmentation for MONAI Label viewers. Not for diagnostic use.",
        openapi_url=f"{settings.MONAI_LABEL_API_STR}/openapi.json",
        docs_url=None,  # FastAPI's page loads its scripts from the internet; routes.pages has one that does not
        redoc_url=None,
        lifespan=_lifespan,
    )
    api.state.served = served
    devices = len(served.model.loaded.predictors.devices)
    queue = api.state.click_queue = ClickQueue(max(served.serving.worker_threads, devices), served.serving.max_waiting)
    metrics = api.state.metrics = Metrics()
    served.doubts.is_idle = served.batches.is_idle = lambda: queue.waiting + queue.running == 0
    metrics.watch("clicks_waiting", "Clicks that wait for a thread", lambda: queue.waiting)
    metrics.watch("clicks_running", "Clicks that are computed", lambda: queue.running)
    metrics.watch("volume_bytes", "Decoded volumes in memory, not on disk", lambda: served.volumes.n_bytes)
    api.state.file_workers = Workers(FILE_THREADS, served.serving.max_waiting)
    api.state.dicomweb_proxy = None if served.dicomweb is None else DicomWebProxy(served.dicomweb)
    api.state.door = secure(api, served.serving, None if served.is_read_only else served.kept / "audit")
    include_routes(api)
    answer_faults(api)
    return api


def include_routes(api: FastAPI) -> None:
    """Give ``api`` every route that there is."""
    for routes in ROUTES:
        api.include_router(routes.router, prefix=settings.MONAI_LABEL_API_STR, responses=DOCUMENTED)
    api.include_router(ohif.router, responses=DOCUMENTED)


def served_app() -> DeepGrow3DApp:
    """The app that MONAI Label's settings name.

    Raises:
        DeepGrow3DError: it cannot be started.
    """
    served = app_instance()
    if not isinstance(served, DeepGrow3DApp):
        raise NotFound(f"'{settings.MONAI_LABEL_APP_DIR}' is not the app folder of DeepGrow 3D. Give apps/deepgrow3d.")
    served.server_mode(True)
    return served


@contextlib.asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    served: DeepGrow3DApp = api.state.served
    await anyio.to_thread.run_sync(served.images().finish_saves)
    await anyio.to_thread.run_sync(served.trainings.recover)
    cleanup = asyncio.create_task(_clean_up(served))
    yield
    cleanup.cancel()
    await anyio.to_thread.run_sync(served.trainings.close)
    await anyio.to_thread.run_sync(served.batches.close)
    if api.state.dicomweb_proxy is not None:
        await api.state.dicomweb_proxy.close()
    await anyio.to_thread.run_sync(served.close)


async def _clean_up(served: DeepGrow3DApp) -> None:
    while True:
        try:
            await anyio.to_thread.run_sync(served.clean_up)
        except Exception:
            logger.exception("The cleaning up failed; it is tried again")
        await asyncio.sleep(CLEANUP_EVERY_S)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    try:
        app = build(served_app())
    except DeepGrow3DError as error:
        sys.exit(f"DeepGrow 3D cannot start. {error}")
    globals()["app"] = app
    return app
