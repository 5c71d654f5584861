"""The studies on a DICOMweb server, as a datastore: images are its series, final labels are DICOM SEGs on it."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepgrow3d_app import PRODUCT, __version__
from deepgrow3d_app.errors import InvalidInput, InvalidRequest, NotFound, ServerFault
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.dicomweb.content_time import instant_of
from deepgrow3d_app.serving.dicomweb.final_label import (
    FIRST_SERIES_NUMBER,
    FinalLabel,
    LabelToStore,
    description,
    made_after,
)
from deepgrow3d_app.serving.dicomweb.images import DicomWebImages
from deepgrow3d_app.serving.dicomweb.listing import FINAL
from deepgrow3d_app.serving.dicomweb.pacs import Pacs, referenced_series
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.label_history import LABEL_EXTENSION, LabelVersion
from deepgrow3d_app.serving.label_names import LABEL_INFO, info_of, segments_of
from deepgrow3d_app.serving.studies_files import VERSION
from deepgrow3d_app.serving.studies_labels import Publication
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.dicom_seg.decode import decode_seg
from deepgrow3d_app.volume.dicom_seg.encode import encode_seg
from deepgrow3d_app.volume.dicom_seg.segment import Origin, SegIdentity, Segment, named_segments
from deepgrow3d_app.volume.files import encode_mask, read_mask
from deepgrow3d_app.volume.volume import Mask

logger = logging.getLogger(__name__)


class DicomWebStudies(DicomWebImages):
    """The series of a DICOMweb server and their labels; safe to share between threads.

    The index, fetched series and labels lie in a folder of this machine, so that clicks on what was fetched, and the
    start, need no server. A label is final once the server has it.

    Args:
        folder: where index, series and labels are kept.
        pacs: the server.
        volumes: where decoded images are kept.
        log: how masks were made.
        max_bytes: bound on the fetched series.
        refresh_s: how old the list may be.
        removes_superseded: whether an earlier final label of ours is removed from the server.
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
        removes_superseded: bool,
        model_digest: Callable[[], str] = lambda: "",
    ) -> None:
        self._removes_superseded = removes_superseded
        super().__init__(
            folder, pacs, volumes, log, max_bytes=max_bytes, refresh_s=refresh_s, model_digest=model_digest
        )

    def label_file(self, image_id: str, tag: str) -> Path:
        """The file of the label ``tag`` of the series ``image_id``; a final label is fetched where it is not here yet.

        Raises:
            NotFound: there is no such label.
            ServerFault: it cannot be fetched.
            LabelMismatch, UnreadableVolume, UnsupportedVolume: a segmentation that is no label map of this series.
        """
        if tag != FINAL:
            return super().label_file(image_id, tag)
        self.look_for_labels()  # another server, or a viewer, may have replaced it
        final = self._final(image_id)
        if final is None or (final.has_file and self._fits(image_id)):
            return super().label_file(image_id, tag)
        return self._fetched_label(image_id, final)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is known of a label: its structures too, which stand in the segmentation."""
        self.label_file(label_id, label_tag)
        info: dict[str, Any] = super().get_label_info(label_id, label_tag)
        return info

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; a final one from the server as well.

        Raises:
            InvalidRequest: the server has it and does not remove it, or it is not ours.
        """
        if label_tag == FINAL:
            self.refresh_if_old(waits=True)
        final = self._final(label_id) if label_tag == FINAL else None
        if final is not None and not (final.is_ours and self._is_removed(final)):
            raise InvalidRequest(
                f"The segmentation {final.series_uid} lies on the DICOMweb server {self.name()}. Remove it there."
            )
        path = self.labels_folder / label_tag / f"{label_id}{LABEL_EXTENSION}"
        with self.editing() as index:
            entry = index.objects.get(label_id)
            if entry is None or entry.labels.pop(label_tag, None) is None:
                raise NotFound(f"The series {shown(label_id)} has no label {shown(label_tag)}.")
            self._at_the_end(lambda: path.unlink(missing_ok=True))

    def label_in(self, content: bytes) -> LabelToStore | None:
        """The final label that a viewer stores with the DICOM file ``content``, made anew with the UIDs it has.

        ``None`` where it is no segmentation of one of the studies that can be a label map: it is then stored as it is.
        """
        referenced = referenced_series(content)
        if referenced is not None and referenced not in self._datastore.objects:
            self.refresh_if_old(waits=True)
        if referenced is None or referenced not in self._datastore.objects:
            return None
        self.look_elsewhere(referenced, FINAL)
        try:
            decoded = decode_seg(content, self.image_file(referenced))
            return self._to_store(referenced, decoded.mask, decoded.segments, decoded.identity)
        except InvalidInput as error:
            logger.warning("A segmentation of %s is stored as it came. %s", referenced, error)
            return None

    def finish_saves(self) -> None:
        """Nothing: what was stored on the server before a kill is found in its list."""

    def adopt(self, label: LabelToStore, saved_by: str = "") -> None:
        """Make ``label``, which is on the server now, the final label of its image; ``saved_by`` has signed in."""
        volume = self._volumes.get(self.image_file(label.image_id))
        content = encode_mask(label.mask, volume.affine, LABEL_EXTENSION)
        info = {**label.final.to_info(), LABEL_INFO: info_of(label.segments)}
        record = LabelVersion(saved_by=saved_by, model_sha256=self._model_digest())
        with self.editing() as index:
            entry = index.objects.get(label.image_id)
            if entry is None:
                raise NotFound(f"The series {shown(label.image_id)} is gone from the studies.")
            self._put_label(entry, label.image_id, FINAL, content, info, record)
        self._remove(label.superseded, label.final)

    def look_elsewhere(self, image_id: str, tag: str) -> None:
        """Fetch the final label that is about to be replaced, where it is not here yet, so that the history has it.

        Another server may have stored it, or this one before it lost its folder.
        """
        if tag != FINAL:
            return
        self._init_from_datastore_file()  # another process may serve this folder
        self.refresh()
        try:
            self.label_file(image_id, FINAL)
        except (InvalidInput, NotFound, ServerFault) as error:
            if self._final(image_id) is not None:
                logger.warning("The final label of %s is replaced unseen, and not removed. %s", image_id, error)

    def _publish(self, image_id: str, tag: str, mask: Mask, label_info: dict[str, Any]) -> Publication:
        """Store a final label as a DICOM SEG on the server.

        The segmentation that it supersedes is removed from the server where that is ours, is in the history here, and
        the server lets us; otherwise the new one says in its description that it replaces it, and is the newest.

        Raises:
            ServerFault: the server does not take it; nothing is changed here then.
        """
        if tag != FINAL:
            return Publication()
        label = self._to_store(image_id, mask, segments_of(label_info), None)
        try:
            self._pacs.store(label.content)
        except ServerFault:  # it may have stored it all the same, and have been too slow to say so
            self._take_back(label.final)
            raise
        return Publication(
            {**label.final.to_info(), LABEL_INFO: info_of(named_segments(mask, label.segments))},
            complete=lambda: self._remove(label.superseded, label.final),
            take_back=lambda: self._take_back(label.final),
        )

    def _is_removed(self, final: FinalLabel) -> bool:
        return self._pacs.remove_segmentation(final.study_uid, final.series_uid, final.instance_uid)

    def _take_back(self, final: FinalLabel) -> None:
        if not self._is_removed(final):
            logger.warning("The server keeps the segmentation %s, whose save was refused", final.series_uid)

    def _to_store(
        self, image_id: str, mask: Mask, segments: Sequence[Segment], identity: SegIdentity | None
    ) -> LabelToStore:
        superseded = self._final(image_id)
        save = 1 if superseded is None else superseded.save + 1
        content = encode_seg(
            mask,
            self.image_file(image_id),
            segments,
            Origin(PRODUCT, __version__),
            description=description(save),
            series_number=FIRST_SERIES_NUMBER + save,
            identity=identity,
            made_at=made_after(superseded),
        )
        return LabelToStore(image_id, mask, segments, content, FinalLabel.made(content, save), superseded)

    def _final(self, image_id: str) -> FinalLabel | None:
        """What is known of the final label on the server."""
        label = self._datastore.label(image_id, FINAL)
        final = FinalLabel.of(label.info) if label is not None else None
        if final is not None and not self._label_path(image_id).is_file():
            return replace(final, file_of="")
        return final

    def _label_path(self, image_id: str) -> Path:
        return self.labels_folder / FINAL / f"{image_id}{LABEL_EXTENSION}"

    def _fits(self, image_id: str) -> bool:
        """Whether the final label's file lies on the series as it is: slices may have come since."""
        series = self._series.path(image_id)
        file = self._label_path(image_id)
        if not series.is_dir() or series.stat().st_mtime <= file.stat().st_mtime:
            return True
        mask, _ = read_mask(file)
        return mask.shape == self._volumes.get(series).shape

    def _remove(self, superseded: FinalLabel | None, by: FinalLabel) -> None:
        """Take off the server what a later save replaced.

        ``superseded`` was looked up before that save was stored: what the list of the server calls the final label may
        be the new one already. A viewer that stores the same file twice supersedes nothing. What could not be fetched
        is in no history, and stays; so does everything where the server does not list what replaces it.
        """
        if superseded is None or not (superseded.is_ours and superseded.has_file and self._removes_superseded):
            return
        if superseded.series_uid == by.series_uid:
            return
        try:
            is_there = by.instance_uid in self._pacs.instances(by.study_uid, by.series_uid)
        except ServerFault:
            is_there = False
        if not (is_there and self._is_removed(superseded)):
            logger.warning("The server keeps the superseded segmentation %s", superseded.series_uid)

    def _fetched_label(self, image_id: str, final: FinalLabel) -> Path:
        folder = self.image_file(image_id)
        volume = self._volumes.get(folder)
        file = self._label_path(image_id)
        file.parent.mkdir(parents=True, exist_ok=True)
        decoded = decode_seg(self._pacs.fetch_one(final.study_uid, final.series_uid), folder)
        content = encode_mask(decoded.mask, volume.affine, LABEL_EXTENSION)
        with self.editing() as index:
            label = index.label(image_id, FINAL)
            known = FinalLabel.of(label.info) if label is not None else None
            if label is None or known is None or known.instance_uid != final.instance_uid:
                raise NotFound(f"The label of {shown(image_id)} was replaced meanwhile. Ask for it again.")
            self._written_with_index(file, io.BytesIO(content))
            label.info.update(known.with_file().to_info())
            label.info["label_info"] = info_of(decoded.segments)
            made = instant_of(known.made_at)
            saved = time.time() if made is None else made.timestamp()
            version = self.history.add_found(image_id, FINAL, content, label.info, saved)
            label.info = {**version.info, **label.info, VERSION: version.number}  # with what reviewers said of it
        return file
