"""What a DICOMweb server lists: series of images, and segmentations of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageSeries:
    """A series of images as the server lists it; "" and 0 where it does not say."""

    series_uid: str
    study_uid: str
    modality: str
    n_instances: int
    description: str
    patient_id: str
    study_date: str


@dataclass(frozen=True, slots=True)
class StoredSegmentation:
    """A segmentation on the server.

    Attributes:
        series_uid, study_uid, instance_uid: its own.
        image_series_uid: what it was drawn on; "" where it does not say.
        made_at: date and time of its content, as digits that sort; "" where it does not say.
        manufacturer: who made it.
        series_number: 0 where it has none.
    """

    series_uid: str
    study_uid: str
    instance_uid: str
    image_series_uid: str
    made_at: str
    manufacturer: str
    series_number: int


@dataclass(frozen=True, slots=True)
class ListedSegmentations:
    """The segmentations on the server.

    Attributes:
        series_uids: all of them.
        described: those that say what they were drawn on.
    """

    series_uids: frozenset[str]
    described: tuple[StoredSegmentation, ...]
