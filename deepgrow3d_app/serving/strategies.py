"""Which image to annotate next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from deepgrow3d_app.serving.doubts import Doubts

UNCERTAIN = "uncertain"
TAKEN_S = 1800
"""How long an image that was handed out is somebody's: another annotator gets another one."""


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
        return self.choose(images, request, datastore) if images else None

    def choose(self, images: Sequence[str], request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """One of ``images``, of which there is at least one."""
        now = int(time.time())
        weights = [
            max(1, now - last_served_ts(datastore.get_image_info(image), request["strategy"])) for image in images
        ]
        chosen = int(self._generator.choice(len(images), p=np.array(weights) / sum(weights)))
        return {"id": images[chosen], "weight": weights[chosen]}


class UncertainStrategy(Strategy):  # type: ignore[misc]
    """The unlabelled image about which the served network contradicts itself most, and that nobody just got.

    Images are scored in the background, for each network once. Where all that are scored are somebody's, or none is
    scored, chance decides among the others.

    Args:
        doubts: the scores.
        otherwise: chooses where nothing is known.
    """

    def __init__(self, doubts: Doubts, otherwise: RandomStrategy) -> None:
        super().__init__("Where the model is least sure, by its own disagreement")
        self._doubts = doubts
        self._otherwise = otherwise

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """``{"id": image, "weight": disagreement}``, or ``None`` when nothing is left."""
        images = sorted(datastore.get_unlabeled_images())
        if not images:
            return None
        scores = self._doubts.scores(images)
        now = time.time()
        free = [
            image for image in images if now - last_served_ts(datastore.get_image_info(image), UNCERTAIN) >= TAKEN_S
        ] or images
        scored = [image for image in free if image in scores]
        if not scored:
            return self._otherwise.choose(free, request, datastore)
        best = max(scored, key=lambda image: scores[image])
        return {"id": best, "weight": round(scores[best], 4)}


def last_served_ts(image_info: dict[str, Any], strategy: str) -> int:
    """When ``strategy`` last handed out the image, in seconds since 1970; 0 where it never did."""
    served = image_info.get("strategy")
    served = served.get(strategy) if isinstance(served, dict) else None
    ts = served.get("ts") if isinstance(served, dict) else None
    return ts if isinstance(ts, int) and 0 <= ts <= time.time() else 0
