"""A final label as a DICOM SEG: its names, its description, and what the index remembers of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any

from pydicom import dcmread

from deepgrow3d_app import PRODUCT
from deepgrow3d_app.serving.dicomweb.content_time import instant_of, made_at
from deepgrow3d_app.serving.dicomweb.listed import StoredSegmentation
from deepgrow3d_app.volume.dicom_seg.segment import Segment
from deepgrow3d_app.volume.volume import Mask

FIRST_SERIES_NUMBER = 9000
DICOM_SEG = "dicom_seg"
"""In a label's info: what is remembered of its segmentation."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelToStore:
    """A final label that is about to be stored on the server.

    Attributes:
        image_id: the series that it belongs to.
        mask: on the grid of the series.
        segments: its structures.
        content: the DICOM SEG.
        final: what is to be remembered of it.
        superseded: what was the final label when this one was made.
    """

    image_id: str
    mask: Mask
    segments: Sequence[Segment]
    content: bytes
    final: FinalLabel
    superseded: FinalLabel | None


@dataclass(frozen=True, slots=True)
class FinalLabel:
    """What the index keeps of the segmentation that is an image's final label.

    Attributes:
        study_uid, series_uid, instance_uid: where it is on the server.
        made_at: date and time of its content, as digits that sort; "" where it does not say.
        is_ours: whether this program made it, and so may remove it.
        save: which save of the image it is, from 1.
        file_of: the instance that the label's file was made from; "" where it has not been fetched.
        is_listed: whether the server has listed it. One that was listed and is no more was removed there.
    """

    study_uid: str
    series_uid: str
    instance_uid: str
    made_at: str
    is_ours: bool
    save: int = 1
    file_of: str = ""
    is_listed: bool = False

    @classmethod
    def found(cls, stored: StoredSegmentation) -> FinalLabel:
        """The label that the server was found to have."""
        is_ours = stored.manufacturer == PRODUCT
        save = max(1, stored.series_number - FIRST_SERIES_NUMBER) if is_ours else 1
        return cls(
            stored.study_uid, stored.series_uid, stored.instance_uid, stored.made_at, is_ours, save, is_listed=True
        )

    @classmethod
    def made(cls, content: bytes, save: int) -> FinalLabel:
        """The label in the DICOM SEG ``content``, which we made."""
        header = dcmread(BytesIO(content), stop_before_pixels=True)
        uid = str(header.SOPInstanceUID)
        return cls(str(header.StudyInstanceUID), str(header.SeriesInstanceUID), uid, made_at(header), True, save, uid)

    @classmethod
    def of(cls, label_info: Mapping[str, Any]) -> FinalLabel | None:
        """What is in ``label_info``, if anything is."""
        kept = label_info.get(DICOM_SEG)
        if not isinstance(kept, Mapping):
            return None
        try:
            return cls(**kept)
        except TypeError:  # of another version
            return None

    def to_info(self) -> dict[str, Any]:
        """As the index keeps it."""
        return {DICOM_SEG: {name: getattr(self, name) for name in self.__slots__}}

    def with_file(self) -> FinalLabel:
        """This, with a file that was made from it."""
        return replace(self, file_of=self.instance_uid)

    @property
    def has_file(self) -> bool:
        """Whether the label's file shows this segmentation."""
        return self.file_of == self.instance_uid


def made_after(superseded: FinalLabel | None) -> datetime:
    """The present, or the next instant after ``superseded``, which came from another clock: the newest label counts."""
    now = datetime.now()
    earlier = None if superseded is None else instant_of(superseded.made_at)
    return now if earlier is None else max(now, earlier + timedelta(microseconds=1))


def description(save: int) -> str:
    """What viewers list the segmentation as."""
    return f"{PRODUCT} final" if save == 1 else f"{PRODUCT} final, save {save} (replaces {save - 1})"
