"""``/activelearning``: which image to annotate next."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from deepgrow3d_app.serving.access import USER, Served
from deepgrow3d_app.serving.security.audit import tell_subject

router = APIRouter(prefix="/activelearning", tags=["ActiveLearning"])

MAX_CLIENT_ID = 200


@router.post("/{strategy}", dependencies=USER)
def next_sample(
    served: Served, strategy: str, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, Any]:
    """The next image; {} when every image has a final label."""
    chosen = served.strategy(strategy)({**(params or {}), "strategy": strategy}, served.images())
    if not chosen:
        return {}
    images = served.images()
    image_id = chosen["id"]
    tell_subject("image", image_id)
    path = images.image_file(image_id)
    served.volumes.prefetch(path)  # the first click on it is near
    info = images.get_image_info(image_id)
    client = (params or {}).get("client_id")
    images.hand_out(image_id, strategy, str(client)[:MAX_CLIENT_ID] if client else None)
    return {**info, "path": str(info.get("path", path)), **chosen}
