"""``/health``: for whatever starts, stops and watches over servers. Nobody has to sign in for it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from deepgrow3d_app.serving.access import ClickLine, Served
from deepgrow3d_app.serving.health import Health, health_of

router = APIRouter(prefix="/health", tags=["App"])


@router.get("/live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@router.get("/ready", response_model=Health, responses={503: {"model": Health}})
def ready(served: Served, queue: ClickLine) -> JSONResponse:
    """A click and a save would be answered now; else 503, and why not."""
    health = health_of(served, queue)
    return JSONResponse(health.model_dump(), 200 if health.is_ready else 503)
