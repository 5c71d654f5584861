"""A click request: the strings and lists that viewers send, parsed once into one typed object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import InvalidClicks, InvalidRequest
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.volume.files import EXTENSIONS
from deepgrow3d_app.volume.geometry import Index

MAX_CLICKS = 1000
MAX_NAME = 200
_BEYOND_ANY_IMAGE = 1 << 31


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What one call of ``/infer`` asks for, apart from the image.

    Attributes:
        clicks: all clicks on the structure so far; foreground first, each side in the order it was sent.
        label: the structure's name, "" where the viewer does not say (OHIF does not). It may stand in
            ``label_info`` too, where MONAI Label looks for the name of a DICOM SEG.
        client: who asks, as the viewer calls itself, "" where unknown; only tells remembered masks apart.
        image_etag: of the image's file as it was downloaded, where the viewer says; ``None`` for whatever it is now.
        annotator: who asks, by the name that was signed in with, "" where nobody signs in; no parameter says that.
        result_extension: the mask's format; ``None`` for that of the image.
        compress: whether the voxels of a NRRD are compressed.
    """

    clicks: tuple[Click, ...]
    label: str = ""
    client: str = ""
    image_etag: str | None = None
    annotator: str = ""
    result_extension: str | None = None
    compress: bool = True

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> InferRequest:
        """Parse the JSON object ``params``; keys that mean nothing here (device, roi, ...) are left alone.

        Raises:
            InvalidClicks: a list of clicks that is missing or malformed.
            InvalidRequest: another value that cannot be used.
        """
        return cls(
            clicks=_clicks(params, "foreground", is_positive=True) + _clicks(params, "background", is_positive=False),
            label=_text(params, "label") or _first_name(params),
            client=_text(params, "client_id"),
            image_etag=_text(params, "image_etag") or None,
            result_extension=_extension(params),
            compress=_compress(params),
        )


def _clicks(params: Mapping[str, Any], name: str, *, is_positive: bool) -> tuple[Click, ...]:
    points = params.get(name)
    if points is None:
        raise InvalidClicks(f'\'{name}\' is missing. Send "{name}": [[i, j, k], ...], or "{name}": [] for none.')
    if not isinstance(points, list):
        raise InvalidClicks(f"'{name}' is {_brief(points)}. Send a list of voxels, [[i, j, k], ...].")
    if len(points) > MAX_CLICKS:
        raise InvalidClicks(f"'{name}' holds {len(points)} clicks, over the limit of {MAX_CLICKS}. Send fewer.")
    return tuple(Click(_index(point, name), is_positive) for point in points)


def _index(point: Any, name: str) -> Index:
    if not isinstance(point, list) or len(point) != 3:
        raise InvalidClicks(
            f"'{name}' holds {_brief(point)}, which is no voxel. Send three whole numbers [i, j, k] for each click."
        )
    i, j, k = (_whole(value, name) for value in point)
    return i, j, k


def _whole(value: Any, name: str) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not (math.isfinite(value) and value.is_integer()))
        or abs(value) > _BEYOND_ANY_IMAGE
    ):
        raise InvalidClicks(
            f"'{name}' holds the coordinate {_brief(value)}. "
            "Send whole numbers: voxel indices (i, j, k) of the stored image, counted from 0."
        )
    return int(value)


def _text(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise InvalidRequest(f"'{name}' is {_brief(value)}. Send text of at most {MAX_NAME} characters.")
    return value


def _first_name(params: Mapping[str, Any]) -> str:
    infos = params.get("label_info")
    first = infos[0] if isinstance(infos, list) and infos else None
    return _text(first, "name") if isinstance(first, Mapping) else ""


def _extension(params: Mapping[str, Any]) -> str | None:
    value = params.get("result_extension")
    if value is None:
        return None
    if value not in EXTENSIONS:
        raise InvalidRequest(f"'result_extension' is {_brief(value)}. Choose one of {', '.join(EXTENSIONS)}.")
    return str(value)


def _compress(params: Mapping[str, Any]) -> bool:
    dtype = params.get("result_dtype", "uint8")
    if dtype not in (None, "uint8"):
        raise InvalidRequest(f"'result_dtype' is {_brief(dtype)}. Masks are 'uint8': send that, or leave it out.")
    compress = params.get("result_compress", True)
    if compress is None:
        return True
    if not isinstance(compress, bool):
        raise InvalidRequest(f"'result_compress' is {_brief(compress)}. Send true or false.")
    return compress


def _brief(value: object) -> str:
    """``value`` for messages, never long."""
    return shown(value) if isinstance(value, str) else shown(repr(value)).strip("'\"")
