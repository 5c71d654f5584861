"""``/activelearning``: which image to annotate next."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import APIRouter

from deepgrow3d_app.serving.access import USER, Served
from deepgrow3d_app.serving.json_body import JsonBody
from deepgrow3d_app.serving.security.audit import tell_subject

router = APIRouter(prefix="/activelearning", tags=["ActiveLearning"])

MAX_CLIENT_ID = 200

_handing_out = threading.Lock()
"""What is handed out is noted before the next one is chosen: two who ask at once do not get the same image."""


@router.post("/{strategy}", dependencies=USER)
def next_sample(served: Served, strategy: str, params: JsonBody) -> dict[str, Any]:
    """The next image; {} when every image has a final label."""
    choose = served.strategy(strategy)
    images = served.images()
    client = params.get("client_id")
    images.list_images()  # a DICOMweb server may have to be asked: nobody else waits for that
    with _handing_out:
        chosen = choose({**params, "strategy": strategy}, images)
        if not chosen:
            return {}
        image_id = chosen["id"]
        info = images.get_image_info(image_id)
        images.hand_out(image_id, strategy, str(client)[:MAX_CLIENT_ID] if client else None)
    tell_subject("image", image_id)
    path = images.image_file(image_id)  # nor for this: it may have to be fetched
    served.volumes.prefetch(path)  # the first click on it is near
    return {**info, "path": str(info.get("path", path)), **chosen}
