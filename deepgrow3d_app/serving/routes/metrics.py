"""``/metrics``: what Prometheus reads."""

from __future__ import annotations

from fastapi import APIRouter, Response

from deepgrow3d_app.serving.access import USER, Measured
from deepgrow3d_app.serving.metrics import CONTENT_TYPE

router = APIRouter(prefix="/metrics", tags=["Metrics"])


@router.get("", dependencies=USER, response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def read_metrics(metrics: Measured) -> Response:
    """Seconds of clicks by stage, clicks by outcome, what waits."""
    return Response(metrics.text(), media_type=CONTENT_TYPE)
