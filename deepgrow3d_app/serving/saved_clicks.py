"""Which clicks made the masks of a label that is saved: as the viewer says, or as they were answered."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, TypeAdapter, ValidationError

from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.click_memory import Subject
from deepgrow3d_app.serving.file_version import FileVersion
from deepgrow3d_app.serving.infer_request import MAX_CLICKS
from deepgrow3d_app.volume.geometry import Index


class ClickSets(BaseModel):
    """The clicks that led to one structure's mask, as voxels (i, j, k) of the stored image."""

    model_config = ConfigDict(frozen=True)

    foreground: list[tuple[int, int, int]]
    background: list[tuple[int, int, int]]


_Sent = Annotated[list[tuple[StrictInt, StrictInt, StrictInt]], Field(max_length=MAX_CLICKS)]
_SENT = TypeAdapter(dict[str, dict[str, _Sent]])


def sent_clicks(given: object, names: Collection[str], shape: Index) -> dict[str, ClickSets] | None:
    """The clicks that a viewer says its masks were made from, by structure; ``None`` where it does not say that well.

    Args:
        given: ``{"liver": {"foreground": [[i, j, k], ...], "background": [...]}, ...}``.
        names: of the structures of the label.
        shape: voxels of the image; clicks lie in it.
    """
    try:
        sent = _SENT.validate_python(given)
    except ValidationError:
        return None
    for name, sides in sent.items():
        clicks = [click for side in sides.values() for click in side]
        if name not in names or sides.keys() != {"foreground", "background"} or len(clicks) > MAX_CLICKS:
            return None
        if any(not 0 <= place < extent for click in clicks for place, extent in zip(click, shape, strict=True)):
            return None
    return {name: ClickSets(**sides) for name, sides in sent.items() if any(sides.values())}


def answered_clicks(
    log: ClickLog, image: str, version: FileVersion, names: Iterable[str], client: str, annotator: str
) -> dict[str, ClickSets]:
    """Those of the last answer to ``client``, by structure; none where it does not say who it is.

    Args:
        log: what was answered.
        image, version: the image's path, and which file that is.
        names: of the structures.
        client: as it called itself.
        annotator: the name that was signed in with; "" where nobody signs in.
    """
    clicks = {}
    for name in names if client else ():
        answered = log.history(Subject(image, version, (), name, f"/{client}", annotator))
        if answered:
            last = sorted(answered[-1].clicks, key=lambda click: click.index)
            clicks[name] = ClickSets(
                foreground=[click.index for click in last if click.is_positive],
                background=[click.index for click in last if not click.is_positive],
            )
    return clicks
