"""The studies' final labels, as cases that can be trained on."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.exception import MONAILabelException

from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import DeepGrow3DError
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.label_names import segments_of
from deepgrow3d_app.volume.atomic_file import replace_file

logger = logging.getLogger(__name__)

FINAL = "final"
FLAGGED = "flagged"
REVIEW = "segmentationMeta"
"""In a label's info: what MONAI Label's reviewer plugin keeps of a review."""


def labelled_cases(images: StudiesDatastore) -> list[CaseSource]:
    """A case for each image with a final label that no reviewer flagged; what cannot be had is left out, and logged.

    Images of a DICOMweb server are fetched where they are not here yet. A case belongs to the patient that the
    image names, or else to one of its own.
    """
    cases = []
    for image in sorted(images.get_labeled_images()):
        try:
            label = images.label_file(image, FINAL)
            about = images.get_label_info(image, FINAL)
            if reviewed_as(about) == FLAGGED:
                logger.info("Not trained on: the label of '%s' is flagged", image)
                continue
            names = {segment.name: segment.value for segment in segments_of(about)}
            if len(names) < len(segments_of(about)):  # else all but one of them would be learnt as background
                logger.warning("Not trained on: '%s'. Two of its values have one name: give each its own", image)
                continue
            patient = str(images.get_image_info(image).get("PatientID") or image)
            cases.append(CaseSource(image, patient, images.image_download(image), label, names))
        except (DeepGrow3DError, MONAILabelException, OSError) as error:
            logger.warning("Not trained on: '%s'. %s", image, error)
    return cases


def reviewed_as(label_info: Mapping[str, Any]) -> str:
    """What a reviewer made of a label, as MONAI Label's reviewer keeps it: "approved", "flagged", or ""."""
    meta = label_info.get(REVIEW)
    return str(meta.get("status") or "") if isinstance(meta, Mapping) else ""


def write_cases(cases: Sequence[CaseSource], file: Path) -> None:
    """Write ``cases`` as a manifest that ``deepgrow3d prepare`` and training take."""
    rows = [
        {
            "name": case.name,
            "patient": case.patient,
            "image": str(case.image.resolve()),
            "labels": str(case.labels.resolve()),
            "structures": dict(case.names),
        }
        for case in cases
    ]
    replace_file(file, io.BytesIO(json.dumps({"cases": rows}, indent=1).encode()))
