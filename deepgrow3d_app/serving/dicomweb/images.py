"""The series on a DICOMweb server, as the images of a datastore."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepgrow3d_app.errors import InvalidInput, InvalidRequest, NotFound, ServerFault
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.dicomweb.listed import ImageSeries, ListedSegmentations
from deepgrow3d_app.serving.dicomweb.listing import FINAL, LISTED, bring_in_line, missing
from deepgrow3d_app.serving.dicomweb.pacs import Pacs
from deepgrow3d_app.serving.dicomweb.series_folder import SeriesFolder
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.label_history import LABEL_EXTENSION
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import encode_volume

logger = logging.getLogger(__name__)

SERIES_FOLDER = "series"
AWAY_S = 15.0
"""How long a server that did not answer is left alone by what only wants to know whether anything is new."""


class DicomWebImages(StudiesDatastore):
    """The series of a DICOMweb server, listed and fetched; safe to share between threads.

    The list is brought up to date when somebody asks for it; what was fetched stays on this machine.

    Args:
        folder: where index, series and labels are kept.
        pacs: the server.
        volumes: where decoded images are kept.
        log: how masks were made.
        max_bytes: bound on the fetched series.
        refresh_s: how old the list may be.
        model_digest: tells the sha256 of the served network, for the history of labels.

    Raises:
        InvalidRequest: the index of the folder is damaged.
    """

    def __init__(
        self,
        folder: Path,
        pacs: Pacs,
        volumes: VolumeCache,
        log: ClickLog,
        *,
        max_bytes: int,
        refresh_s: float,
        model_digest: Callable[[], str] = lambda: "",
    ) -> None:
        self._pacs = pacs
        self._series = SeriesFolder(folder / SERIES_FOLDER, pacs, max_bytes)
        self._exports = folder / "nifti"
        self._refresh_s = refresh_s
        self._refreshing = threading.Lock()
        self._next_refresh = 0.0
        self._is_away = False
        super().__init__(folder, volumes, log, auto_reload=False, images_dir=SERIES_FOLDER, model_digest=model_digest)

    def name(self) -> str:
        """The server's address."""
        return self._pacs.address.url

    # Lists

    def refresh(self) -> None:
        """Bring the index in line with the server.

        Raises:
            ServerFault: the server does not say what it has; the index stays as it is.
        """
        with self._refreshing:
            self._refresh()

    def _refresh(self) -> None:
        is_answered = False
        try:
            images = self._pacs.images()
            segmentations = self._pacs.segmentations({image.study_uid for image in images})
            segmentations = self._with_overlooked(images, segmentations)
            is_answered = True
            self._merge(images, segmentations)
        finally:
            self._is_away = not is_answered
            self._next_refresh = time.monotonic() + (self._refresh_s if is_answered else AWAY_S)

    def _with_overlooked(self, images: list[ImageSeries], segmentations: ListedSegmentations) -> ListedSegmentations:
        """``segmentations`` with those that the server has and did not list: a label is not dropped for that."""
        gone = missing(self._shown.objects, images, segmentations)
        there = {one.series_uid for one in gone if self._pacs.instances(one.study_uid, one.series_uid)}
        return replace(segmentations, series_uids=segmentations.series_uids | there)

    def refresh_if_old(self, *, waits: bool = False) -> None:
        """Bring the index in line with the server where that was long ago; a server that is away changes nothing.

        Args:
            waits: whether to wait where another thread is at it; else the list is that of before.
        """
        if not waits and self._refreshing.locked():
            return
        with self._refreshing:
            if time.monotonic() < self._next_refresh:
                return
            try:
                self._refresh()
            except ServerFault as fault:
                logger.warning("The list of studies is that of before. %s", fault)

    def look_for_labels(self) -> None:
        """Know the labels that others stored, unless the server is away: then what is here is shown meanwhile."""
        if self._is_away:
            self._refresh_aside()
        else:
            self.refresh_if_old(waits=True)

    def _refresh_aside(self) -> None:
        if time.monotonic() >= self._next_refresh and not self._refreshing.locked():
            threading.Thread(target=self.refresh_if_old, name="dicomweb-list", daemon=True).start()

    def _reconcile_datastore(self) -> None:
        self._init_from_datastore_file()
        self.refresh_if_old()

    def list_images(self) -> list[str]:
        """The series that there are."""
        self.refresh_if_old()
        images: list[str] = super().list_images()
        return images

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """The series without a final label."""
        self.refresh_if_old()
        images: list[str] = super().get_unlabeled_images(label_tag, labels)
        return images

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """The series with a final label."""
        self.refresh_if_old()
        images: list[str] = super().get_labeled_images(label_tag, labels)
        return images

    def json(self) -> Any:
        """The index."""
        self.refresh_if_old()
        return super().json()

    def status(self) -> dict[str, Any]:
        """How many series there are, and how many have a final label."""
        self.refresh_if_old()
        status: dict[str, Any] = super().status()
        return status

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Images and final labels, as files for training; both are fetched where they are not here yet.

        What cannot be had or read is left out, and the log says why.
        """
        pairs = []
        for image in self.get_labeled_images():
            try:
                pairs.append({"image": str(self.image_download(image)), "label": str(self.label_file(image, FINAL))})
            except (InvalidInput, NotFound, ServerFault) as error:  # noqa: PERF203 - each image on its own
                logger.warning("Left out of the list for training: '%s'. %s", image, error)
        return pairs

    def _merge(self, images: list[ImageSeries], segmentations: ListedSegmentations) -> None:
        as_it_is = self._shown.model_copy(deep=True)
        bring_in_line(as_it_is.objects, images, segmentations)
        if as_it_is.objects != self._shown.objects:  # mostly nothing is new, and nothing is written
            with self.editing() as index:
                bring_in_line(index.objects, images, segmentations)

    # Images

    def image_file(self, image_id: str) -> Path:
        """The folder of the series ``image_id``, fetched where it is not here yet.

        Raises:
            NotFound: there is no such series.
            ServerFault: it cannot be fetched.
        """
        self._refresh_aside()  # slices that came late are there for the next click; this one does not wait
        return self._series.fetched(self._listed(image_id))

    def image_download(self, image_id: str) -> Path:
        """The series ``image_id`` as one NIfTI file, for viewers and training.

        Raises:
            NotFound: there is no such series.
            ServerFault: it cannot be fetched.
            UnreadableVolume, UnsupportedVolume: it is not one 3-D image.
        """
        folder = self.image_file(image_id)
        file = self._exports / f"{image_id}{LABEL_EXTENSION}"
        if not file.exists() or file.stat().st_mtime < folder.stat().st_mtime:
            content = encode_volume(self._volumes.get(folder))
            self._exports.mkdir(exist_ok=True)
            replace_file(file, io.BytesIO(content))
        return file

    def image_etag(self, image_id: str) -> str:
        """A series is told by its UID, and by how many instances it has: what is fetched again is the same."""
        series = self._listed(image_id)
        return f"{series.series_uid}-{series.n_instances}"

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of the series ``image_id``; ``path`` is that of the file that viewers are given."""
        info: dict[str, Any] = super().get_image_info(image_id)
        return {**info, "path": str(self._exports / f"{image_id}{LABEL_EXTENSION}")} if info else {}

    def add_image(
        self,
        image_id: str,
        image_filename: str,
        image_info: dict[str, Any],
        may_replace: Callable[[], object] = lambda: None,
    ) -> str:
        """Refused: images come from the server."""
        raise InvalidRequest(f"Images come from the DICOMweb server {self.name()}. Store the series there.")

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known of a series; what the server says of it stays."""
        super().update_image_info(image_id, {name: value for name, value in info.items() if name not in LISTED})

    def remove_image(self, image_id: str) -> None:
        """Refused: the server's images are not ours to remove."""
        self._listed(image_id)
        raise InvalidRequest(f"Images belong to the DICOMweb server {self.name()}. Remove the series there.")

    def _listed(self, image_id: str) -> ImageSeries:
        entry = self._datastore.objects.get(image_id)
        if entry is None:  # it may have come since the list was made
            self.refresh_if_old(waits=True)
            entry = self._datastore.objects.get(image_id)
        if entry is None:
            raise NotFound(
                f"There is no series {shown(image_id)} among the studies of {self.name()}. "
                "GET /datastore/?output=all lists them; an image's id is its SeriesInstanceUID."
            )
        info = entry.image.info
        return ImageSeries(
            image_id,
            info["StudyInstanceUID"],
            info["Modality"],
            info["instances"],
            info["SeriesDescription"],
            info["PatientID"],
            info["StudyDate"],
        )
