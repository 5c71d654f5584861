"""What the server lists, as entries of the index."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel

from deepgrow3d_app.serving.dicomweb.final_label import FinalLabel
from deepgrow3d_app.serving.dicomweb.listed import ImageSeries, ListedSegmentations, StoredSegmentation
from deepgrow3d_app.serving.label_history import LABEL_EXTENSION

FINAL = "final"


def bring_in_line(
    entries: dict[str, ImageLabelModel], images: Iterable[ImageSeries], segmentations: ListedSegmentations
) -> None:
    """Make ``entries`` those of the server; a series that has a label stays, whatever the server says.

    The newest segmentation of a series is its final label. One that was removed on the server is none any more.
    """
    newest = {one.image_series_uid: one for one in sorted(segmentations.described, key=lambda one: one.made_at)}
    listed = {image.series_uid: image for image in images}
    for uid in [uid for uid, known in entries.items() if uid not in listed and not known.labels]:
        del entries[uid]
    for uid, image in listed.items():
        entry = entries.setdefault(uid, ImageLabelModel(image=DataModel(info={"ts": int(time.time())})))
        entry.image.info.update(_info(image))
        _look_after_label(entry, segmentations.series_uids)
        if uid in newest:
            _take_over(entry, newest[uid])


LISTED = frozenset(
    {
        *("SeriesInstanceUID", "StudyInstanceUID", "Modality", "SeriesDescription", "PatientID", "StudyDate"),
        *("instances", "name"),
    }
)
"""In an image's info: what the server says of it."""


def _info(image: ImageSeries) -> dict[str, Any]:
    """By DICOM's keywords, as MONAI Label's clients know them; ``name`` is what viewers save the image as."""
    return {
        "SeriesInstanceUID": image.series_uid,
        "StudyInstanceUID": image.study_uid,
        "Modality": image.modality,
        "SeriesDescription": image.description,
        "PatientID": image.patient_id,
        "StudyDate": image.study_date,
        "instances": image.n_instances,
        "name": f"{image.series_uid}{LABEL_EXTENSION}",
    }


def missing(
    entries: dict[str, ImageLabelModel], images: Iterable[ImageSeries], segmentations: ListedSegmentations
) -> list[FinalLabel]:
    """The final labels that were on the server, and that it does not list any more with their series."""
    labels = [entries[image.series_uid].labels.get(FINAL) for image in images if image.series_uid in entries]
    finals = [FinalLabel.of(label.info) for label in labels if label is not None]
    return [one for one in finals if one and one.is_listed and one.series_uid not in segmentations.series_uids]


def _look_after_label(entry: ImageLabelModel, series_uids: frozenset[str]) -> None:
    """Note that the final label of ``entry`` is on the server; drop one that was there and is no more.

    One that was never listed is on its way. What is dropped here stays in the history.
    """
    label = entry.labels.get(FINAL)
    known = FinalLabel.of(label.info) if label is not None else None
    if label is None or known is None:
        return
    if known.series_uid in series_uids:
        label.info.update(replace(known, is_listed=True).to_info())
    elif known.is_listed:
        del entry.labels[FINAL]


def _take_over(entry: ImageLabelModel, newest: StoredSegmentation) -> None:
    """Make ``newest`` the final label of ``entry``, unless it has that, or a later one that is on its way."""
    label = entry.labels.get(FINAL)
    known = FinalLabel.of(label.info) if label is not None else None
    if known is not None and (known.instance_uid == newest.instance_uid or known.made_at > newest.made_at):
        return
    found = FinalLabel.found(newest)
    info = {**found.to_info(), "ts": int(time.time()), "name": f"{newest.image_series_uid}{LABEL_EXTENSION}"}
    entry.labels[FINAL] = DataModel(info=info, ext=LABEL_EXTENSION)
