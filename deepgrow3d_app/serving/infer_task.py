"""Clicks in, an encoded mask out: what MONAI Label calls an infer task."""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from deepgrow3d_app import PRODUCT, __version__
from deepgrow3d_app.click.click import checked_clicks
from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.predictor import Prediction
from deepgrow3d_app.model.suggestion import Suggestion
from deepgrow3d_app.serving.click_log import Answered, ClickLog, way_to
from deepgrow3d_app.serving.click_memory import ClickMemory, Subject
from deepgrow3d_app.serving.compact_answer import COMPACT_EXTENSION, pack
from deepgrow3d_app.serving.file_version import file_version
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.infer_request import InferRequest
from deepgrow3d_app.serving.served_model import LoadedModel, ServedModel
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.dicom_seg.encode import encode_seg
from deepgrow3d_app.volume.dicom_seg.segment import Origin, Segment
from deepgrow3d_app.volume.files import encode_mask, extension_of
from deepgrow3d_app.volume.volume import Mask, Volume

logger = logging.getLogger(__name__)

AnswerForm = Literal["file", "compact", "dicom_seg"]
SEG_EXTENSION = ".dcm"
UNNAMED = "foreground"
"""What the structure is called where the viewer does not say."""


@dataclass(frozen=True, slots=True, eq=False)
class InferAnswer:
    """An encoded mask on the grid of its image.

    Attributes:
        content: the bytes of a file.
        extension: the format of ``content``.
        params: what viewers read beside it: label_names, latencies (in seconds), centroids (voxels), device; and the
            suggested next click, unless the answer was remembered or there is none.
    """

    content: bytes
    extension: str
    params: dict[str, Any]


class DeepGrowInferTask(InferTask):  # type: ignore[misc]
    """Answers clicks with the served model; safe to share between threads.

    Args:
        model: what answers.
        volumes: decoded images.
        memory: masks of earlier clicks.
        log: how they were made.
    """

    def __init__(self, model: ServedModel, volumes: VolumeCache, memory: ClickMemory, log: ClickLog) -> None:
        super().__init__(
            type=InferType.DEEPGROW,
            labels=list(model.loaded.predictors.spec.labels),
            dimension=3,
            description="DeepGrow 3D: clicks inside and outside a structure become its mask",
        )
        self._model = model
        self._volumes = volumes
        self._memory = memory
        self._log = log

    def is_valid(self) -> bool:
        """Whether the task can answer: a server without weights does not start, so it always can."""
        return True

    def info(self) -> dict[str, Any]:
        """What viewers are told, for the weights that are served now: which these are, and what computes."""
        predictors = self._model.loaded.predictors
        own = {"labels": list(predictors.spec.labels), "devices": list(predictors.devices)}
        return {**super().info(), **own, "sha256": self._model.digest()}

    def get_path(self, validate: bool = True) -> str:
        """The checkpoint file."""
        return str(self._model.path)

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """MONAI Label's own way to ask: ``request["image"]`` is a path, the mask comes as a temporary file."""
        answer = self.answer(InferRequest.from_params(request), Path(request["image"]))
        descriptor, path = tempfile.mkstemp(suffix=answer.extension)
        with os.fdopen(descriptor, "wb") as file:
            file.write(answer.content)
        return path, answer.params

    def answer(
        self,
        request: InferRequest,
        image: Path,
        *,
        volume: Volume | None = None,
        previous: Mask | None = None,
        session_id: str = "",
        form: AnswerForm = "file",
    ) -> InferAnswer:
        """The mask that ``request`` asks for.

        Args:
            request: what is asked.
            image: a volume file, or a folder with one DICOM series.
            volume: what is in ``image``, where it is sent for this one answer: nothing of it is kept.
            previous: the mask to start from, on the image's grid; ``None`` for what was answered to
                earlier clicks, where that is remembered.
            session_id: the session that the image belongs to.
            form: what the content is: ``file`` in the format that ``request`` names, ``compact`` as ``compact_answer``
                packs it, or ``dicom_seg``.

        Raises:
            UnreadableVolume, UnsupportedVolume: the image is not one 3-D image.
            InvalidClicks: clicks that mean nothing on this image.
            LabelMismatch: ``previous`` has another shape than the image.
            InvalidRequest: a DICOM SEG of an image that is no DICOM series.
        """
        if form == "dicom_seg" and not image.is_dir():
            raise InvalidRequest(
                f"'{image.name}' is no DICOM series, which output=dicom_seg refers to. Ask for output=image, "
                "or serve a DICOMweb server."
            )
        started = time.perf_counter()
        model = self._model.current()
        image_version = file_version(image)
        is_kept = volume is None
        if volume is None:
            volume = self._volumes.get(image)
        read_s = time.perf_counter() - started
        if previous is not None or not is_kept:
            work = _Work()
            mask = work.add(model.predictors.predict(volume, request.clicks, previous))
        else:
            client = f"{session_id}/{request.client}"
            subject = Subject(str(image), image_version, model.version, request.label, client, request.annotator)
            mask, work = self._answered(model, volume, request, subject)
        written = time.perf_counter()
        name = request.label or UNNAMED
        extension = request.result_extension or extension_of(image.name) or ".nii.gz"
        if form == "compact":
            extension, content = COMPACT_EXTENSION, pack(mask)
        elif form == "dicom_seg":
            extension, content = SEG_EXTENSION, _dicom_seg(mask, image, name)
        else:
            content = encode_mask(mask.full(), volume.affine, extension, compress=request.compress)
        finished = time.perf_counter()
        latencies = {**work.latencies(), "read": read_s, "write": finished - written, "total": finished - started}
        subjects = shown(name), shown(image.name)  # in quotes and on one line, whatever they hold
        logger.info("%s of %s: %d clicks, %.2f s", *subjects, len(request.clicks), latencies["total"])
        params = {
            "label_names": {name: 1},
            "latencies": {step: round(seconds, 3) for step, seconds in latencies.items()},
            "centroids": {name: _centroid(mask)},
            "device": work.device,
            "suggestion": None if work.suggestion is None else dataclasses.asdict(work.suggestion),
        }
        return InferAnswer(content, extension, params)

    def _answered(
        self, model: LoadedModel, volume: Volume, request: InferRequest, subject: Subject
    ) -> tuple[BoxedMask, _Work]:
        """The mask of all clicks of ``request``, computed from that of the clicks before, as often as it takes."""
        ordered = checked_clicks(request.clicks, volume.shape)
        asked = frozenset(ordered)
        work = _Work()
        is_logged = False
        while not is_logged:  # another server may answer the same clicks meanwhile, and then its way counts
            way = tuple(way_to(asked, self._log.history(subject)))
            mask, done = None, 0
            for number in range(len(way), 0, -1):
                mask = self._memory.recall(subject, way[:number])
                if mask is not None:
                    done = number
                    break
            for number in range(done, len(way)):
                # In the order that they were sent: which foreground click came first means something to the network.
                clicks = [click for click in ordered if click in way[number]]
                new = way[number] if number == 0 else way[number] - way[number - 1]
                mask = work.add(model.predictors.predict(volume, clicks, mask, new))
                self._memory.remember(subject, way[: number + 1], mask)
            is_logged = self._log.add(subject, Answered(asked, way[-2] if len(way) > 1 else None))
        assert mask is not None  # noqa: S101 - the way is never empty
        return mask, work


@dataclass(slots=True)
class _Work:
    """What it took to answer: seconds by stage, and who computed; nothing where the answer was remembered."""

    crop_s: float = 0.0
    network_s: float = 0.0
    restore_s: float = 0.0
    device: str = "memory"
    suggestion: Suggestion | None = None

    def add(self, prediction: Prediction) -> BoxedMask:
        self.crop_s += prediction.crop_s
        self.network_s += prediction.network_s
        self.restore_s += prediction.restore_s
        self.device = prediction.device
        self.suggestion = prediction.suggestion
        return prediction.boxed

    def latencies(self) -> dict[str, float]:
        """By MONAI Label's names."""
        return {"pre": self.crop_s, "infer": self.network_s, "invert": self.restore_s, "post": 0.0}


def _dicom_seg(mask: BoxedMask, series: Path, name: str) -> bytes:
    origin = Origin(PRODUCT, __version__)
    return encode_seg(
        mask.full(), series, [Segment(1, name)], origin, description=f"{PRODUCT} {name}", series_number=9000
    )


def _centroid(mask: BoxedMask) -> list[str]:
    """The mean voxel (i, j, k) of ``mask``, rounded, as the strings that MONAI Label sends."""
    totals = [mask.part.sum(axis=others, dtype=np.int64) for others in ((1, 2), (0, 2), (0, 1))]
    return [
        str(round(extent.start + float(np.average(np.arange(total.size), weights=total))))
        for extent, total in zip(mask.box, totals, strict=True)
    ]
