"""What a route needs: the app behind the server, its threads, and the caller's role."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from deepgrow3d_app.errors import NotAllowed, NotSignedIn
from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.click_queue import ClickQueue
from deepgrow3d_app.serving.metrics import Metrics
from deepgrow3d_app.serving.security.callers import WHO_CALLS, Caller
from deepgrow3d_app.serving.security.identity import Identity, Role
from deepgrow3d_app.serving.workers import Workers


class _RequiredRole:
    """A dependency of routes that only callers of ``role`` or above may use."""

    def __init__(self, role: Role) -> None:
        self._role = role

    async def __call__(self, request: Request) -> Identity:
        caller: Caller = request.state.caller
        if caller.identity is None:
            raise caller.fault or NotSignedIn(WHO_CALLS)
        require(caller.identity, self._role)
        return caller.identity


def require(identity: Identity, role: Role) -> None:
    """Raise ``NotAllowed`` where ``identity`` has not ``role``, nor one above."""
    if identity.role < role:
        raise NotAllowed(
            f"This takes the role '{role.title}', and yours is '{identity.role.title}'. Ask whoever runs this server."
        )


USER = [Depends(_RequiredRole(Role.USER))]
ANNOTATOR = [Depends(_RequiredRole(Role.ANNOTATOR))]
REVIEWER = [Depends(_RequiredRole(Role.REVIEWER))]
ADMIN = [Depends(_RequiredRole(Role.ADMIN))]


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
SignedIn = Annotated[Identity, Depends(_RequiredRole(Role.USER))]
"""Who calls, where it matters beyond the role."""

FileWorkers = Annotated[Workers, Depends(_file_workers)]
