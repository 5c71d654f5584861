"""A mask as a small JSON object, for scripts: where its bounding box lies, and the bits in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.compression import deflate

COMPACT_EXTENSION = ".json"


class CompactAnswer(BaseModel):
    """The answer to ``output=compact``, a mask by its bounding box.

    In Python:

    bits = np.unpackbits(np.frombuffer(gzip.decompress(base64.b64decode(a["bits"])), np.uint8))
    part = bits[: np.prod(a["extents"])].reshape(a["extents"])
    mask = np.zeros(a["shape"], np.uint8)
    mask[tuple(slice(s, s + n) for s, n in zip(a["start"], a["extents"]))] = part
    """

    shape: tuple[int, int, int] = Field(description="voxels (i, j, k) of the stored image")
    start: tuple[int, int, int] = Field(description="the first voxel of the mask's bounding box")
    extents: tuple[int, int, int] = Field(description="voxels of the box; all 0 where nothing is inside")
    bits: str = Field(description="base64 of gzip of a bit for each voxel of the box, k fastest, highest bit first")
    params: dict[str, Any] = Field(description="label_names, latencies in seconds, centroids in voxels, device")


def pack(mask: BoxedMask) -> bytes:
    """All of the answer but ``params``, as JSON."""
    answer = {
        "shape": mask.shape,
        "start": [extent.start for extent in mask.box],
        "extents": mask.part.shape,
        "bits": base64.b64encode(deflate(np.packbits(mask.part).data)).decode("ascii"),
    }
    return json.dumps(answer).encode()


def with_params(packed: bytes, params: Mapping[str, Any]) -> bytes:
    """The answer whole."""
    return packed[:-1] + b', "params": ' + json.dumps(params).encode() + b"}"
