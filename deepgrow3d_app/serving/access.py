"""What a route needs: the app behind the server, its threads, and the caller's role where sign-in is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from monailabel.config import settings

from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.click_queue import ClickQueue
from deepgrow3d_app.serving.metrics import Metrics
from deepgrow3d_app.serving.workers import Workers


def required_role(role: str) -> Sequence[Dependency]:
    """The dependencies of a route that only ``role`` may call; none where sign-in is off."""
    if not settings.MONAI_LABEL_AUTH_ENABLE:
        return []
    from monailabel.endpoints.user.auth import RBAC

    return [Depends(RBAC(role))]


USER = required_role(settings.MONAI_LABEL_AUTH_ROLE_USER)
ANNOTATOR = required_role(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)
ADMIN = required_role(settings.MONAI_LABEL_AUTH_ROLE_ADMIN)


def _served_app(request: Request) -> DeepGrow3DApp:
    app: DeepGrow3DApp = request.app.state.served
    return app


def _click_queue(request: Request) -> ClickQueue:
    queue: ClickQueue = request.app.state.click_queue
    return queue


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


def _file_workers(request: Request) -> Workers:
    workers: Workers = request.app.state.file_workers
    return workers


Served = Annotated[DeepGrow3DApp, Depends(_served_app)]
ClickLine = Annotated[ClickQueue, Depends(_click_queue)]
Measured = Annotated[Metrics, Depends(_metrics)]
FileWorkers = Annotated[Workers, Depends(_file_workers)]
