"""What is to be pre-annotated, and from which clicks: parsed once, where a request comes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.identifiers import checked_name

Voxel = tuple[int, int, int]


class Prompt(BaseModel):
    """Clicks on one structure, as voxels (i, j, k) of the stored image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    foreground: list[Voxel] = Field(min_length=1)
    background: list[Voxel] = []

    @property
    def clicks(self) -> list[Click]:
        """All of them, those inside first."""
        return [*(Click(voxel) for voxel in self.foreground), *(Click(voxel, False) for voxel in self.background)]


class BatchOrder(BaseModel):
    """What to do.

    Attributes:
        images: which; those without a final label, all, or a list of ids. With ``prompts``, those that it names.
        prompts: by image, and by structure, where to click.
        seeds_from: the tag of an earlier label: each of its structures is clicked at its deepest voxel.
        label_tag: under which the masks are saved; never as final ones, unless that is asked for.
        overwrite: whether images that have such a label are done again.
    """

    model_config = ConfigDict(frozen=True)

    images: Literal["unlabeled", "all"] | list[str] = "unlabeled"
    prompts: dict[str, dict[str, Prompt]] = {}
    seeds_from: str | None = None
    label_tag: str = "batch"
    overwrite: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> BatchOrder:
        """The order in a request.

        Raises:
            InvalidRequest: it cannot be understood, or says not where to click.
        """
        try:
            order = cls(**{name: value for name, value in params.items() if name in cls.model_fields})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InvalidRequest(
                f"'{place}' cannot be used: {first['msg']}. See POST /batch/infer in /docs."
            ) from error
        if bool(order.prompts) == bool(order.seeds_from):
            raise InvalidRequest(
                "Say where to click, in one way: with 'prompts', or with 'seeds_from', the tag of an earlier label."
            )
        checked_name(order.label_tag, "a label's tag")
        if order.label_tag == order.seeds_from:
            raise InvalidRequest(f"The masks would replace the label '{order.label_tag}' that they are made from.")
        return order
