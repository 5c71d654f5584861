"""Which image to annotate next."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy


class RandomStrategy(Strategy):  # type: ignore[misc]
    """An image without a final label, the likelier the longer it was not handed out.

    MONAI Label's own class fails where every image was handed out within this second.

    Args:
        generator: where chance comes from.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        super().__init__("Random Strategy")
        self._generator = generator

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """``{"id": image, "weight": seconds since it was handed out}``, or ``None`` when nothing is left."""
        images = sorted(datastore.get_unlabeled_images())
        if not images:
            return None
        now = int(time.time())
        weights = [
            max(1, now - last_served_ts(datastore.get_image_info(image), request["strategy"])) for image in images
        ]
        chosen = int(self._generator.choice(len(images), p=np.array(weights) / sum(weights)))
        return {"id": images[chosen], "weight": weights[chosen]}


def last_served_ts(image_info: dict[str, Any], strategy: str) -> int:
    """When ``strategy`` last handed out the image, in seconds since 1970; 0 where it never did."""
    served = image_info.get("strategy")
    served = served.get(strategy) if isinstance(served, dict) else None
    ts = served.get("ts") if isinstance(served, dict) else None
    return ts if isinstance(ts, int) else 0
