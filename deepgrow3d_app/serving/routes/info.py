"""``/info``: what is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from deepgrow3d_app.serving.access import USER, Served

router = APIRouter(prefix="/info", tags=["App"])


@router.get("/", dependencies=USER)
def app_info(served: Served) -> dict[str, Any]:
    """Models, labels, strategies and the state of the studies."""
    info: dict[str, Any] = served.info()
    return info
