"""The files of the studies' images and labels, and what is known of each label."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel

from deepgrow3d_app.errors import Superseded
from deepgrow3d_app.serving.dicomweb.final_label import DICOM_SEG
from deepgrow3d_app.serving.file_version import content_digest
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.label_grid import read_label
from deepgrow3d_app.serving.label_history import LABEL_EXTENSION, LabelHistory, LabelVersion
from deepgrow3d_app.serving.label_names import check_names, with_values
from deepgrow3d_app.serving.studies_index import StudiesIndex, entry_of, no_image, no_label
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import encode_mask
from deepgrow3d_app.volume.volume import Mask, Volume

logger = logging.getLogger(__name__)

HISTORY_FOLDER = Path(".deepgrow3d", "label-history")
VERSION = "version"
"""In a label's info: which version it is."""

OURS = frozenset({VERSION, DICOM_SEG})
"""In a label's info: what clients cannot set. What is said to be on a DICOMweb server is removed from there."""


class StudiesFiles(StudiesIndex):
    """The images of a folder and their labels, ``labels/TAG/ID.nii.gz``; safe to share between threads.

    Args:
        studies: the folder.
        volumes: where decoded images are kept.
        auto_reload, read_only, images_dir: see :class:`StudiesIndex`.

    Raises:
        InvalidRequest: the index of the folder is damaged.
    """

    def __init__(
        self, studies: Path, volumes: VolumeCache, *, auto_reload: bool, read_only: bool, images_dir: str
    ) -> None:
        self._volumes = volumes
        self.history = LabelHistory(studies / HISTORY_FOLDER)
        super().__init__(studies, auto_reload=auto_reload, read_only=read_only, images_dir=images_dir)

    def image_file(self, image_id: str) -> Path:
        """The file of the image ``image_id``.

        Raises:
            NotFound: there is no such image. A path is no id, whether there is a file or not.
        """
        self.look_again()
        path = self.get_image_uri(image_id)
        if not path or not os.path.isfile(path):
            raise no_image(image_id)
        return Path(path)

    def image_etag(self, image_id: str) -> str:
        """Another text whenever the image ``image_id`` is another one, on each server the same; printable ASCII.

        Raises:
            NotFound: there is no such image.
        """
        return content_digest(self.image_file(image_id))

    def check_etag(self, image_id: str, etag: object) -> None:
        """Refuse what belongs to an image that was replaced.

        Args:
            image_id: of the image.
            etag: what :meth:`image_etag` told when the image was opened; ``None`` where that is not known.

        Raises:
            NotFound: there is no such image.
            Superseded: it is another one now.
        """
        if etag is not None and etag != self.image_etag(image_id):
            raise Superseded(f"The image {shown(image_id)} was replaced since it was opened. Open it again.")

    def label_file(self, image_id: str, tag: str) -> Path:
        """The file of the label ``tag`` of the image ``image_id``.

        Raises:
            NotFound: there is no such label.
        """
        self.look_again()
        path = self.get_label_uri(image_id, tag)
        if not path or not os.path.isfile(path):
            raise no_label(image_id, tag)
        return Path(path)

    def label_on_image(self, image_id: str, tag: str) -> bytes:
        """The label ``tag`` of the image ``image_id``, of whatever format: .nii.gz, uint8, on the grid of the image.

        Raises:
            NotFound: there is no such image or label.
            UnreadableVolume, UnsupportedVolume: not a label map.
            LabelMismatch: another program made it on another grid.
        """
        mask, volume = self.label_map(image_id, tag)
        return encode_mask(mask, volume.affine, LABEL_EXTENSION)

    def label_map(self, image_id: str, tag: str) -> tuple[Mask, Volume]:
        """The label ``tag`` of the image ``image_id``, on the grid of the image, and that; raises the same."""
        volume = self._volumes.get(self.image_file(image_id))
        return read_label(self.label_file(image_id, tag), volume), volume

    def get_label_tags_of(self, image_id: str) -> list[str]:
        """The tags of the labels of the image ``image_id``."""
        image = self._datastore.objects.get(image_id)
        return [] if image is None else sorted(image.labels)

    def version_of(self, image_id: str, tag: str) -> int:
        """At which version the label ``tag`` of ``image_id`` is; 0 where there is none, or one that was found."""
        label = self._datastore.label(image_id, tag)
        number = 0 if label is None else label.info.get(VERSION)
        return number if isinstance(number, int) else 0

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove the label ``label_tag`` of the image ``label_id``."""
        with self.editing() as index:
            path = self.label_file(label_id, label_tag)  # of now: another server may have saved one of another format
            entry_of(index, label_id).labels.pop(label_tag, None)
            self._at_the_end(lambda: path.unlink(missing_ok=True))

    def update_label_info(
        self,
        label_id: str,
        label_tag: str,
        info: dict[str, Any],
        may_change: Callable[[Mapping[str, Any]], object] = lambda known: None,
    ) -> None:
        """Add ``info`` to what is known of the label ``label_tag`` of the image ``label_id``.

        Args:
            label_id, label_tag: whose label it is.
            info: what is to be added.
            may_change: called with what is known before; raises where that may not be changed.

        Raises:
            NotFound: there is no such label.
            InvalidRequest: a ``label_info`` that does not name values.
        """
        check_names(info)
        with self.editing() as index:
            label = index.label(label_id, label_tag)
            if label is None:
                raise no_label(label_id, label_tag)
            may_change(label.info)
            label.info.update({name: value for name, value in with_values(info).items() if name not in OURS})
            if isinstance(number := label.info.get(VERSION), int):
                self.history.note(label_id, label_tag, number, label.info)

    def refresh(self) -> None:
        """Bring the index in line with the files; a label whose image was away for a moment is known as before."""
        super().refresh()
        if not self._is_read_only:
            for image_id, entry in self._shown.objects.items():
                for tag in [tag for tag, label in entry.labels.items() if VERSION not in label.info]:
                    self._finish_save(image_id, tag)

    def finish_saves(self) -> None:
        """After a kill between a label's file and the index: what is the label is also what the index says of it."""
        if not self._is_read_only:
            for image_id, entry in self._shown.objects.items():
                for tag in entry.labels:
                    self._finish_save(image_id, tag)

    def _finish_save(self, image_id: str, tag: str) -> None:
        if self._unknown_to_index(image_id, tag) is None:
            return
        with self.editing() as index:
            newest = self._unknown_to_index(image_id, tag)  # another process may have saved meanwhile
            if newest is not None:
                kept = {**newest.info, "ts": int(newest.saved), "name": image_id + LABEL_EXTENSION}
                kept[VERSION] = newest.number
                index.objects[image_id].labels[tag] = DataModel(info=kept, ext=LABEL_EXTENSION)
                logger.warning("The index did not know version %d of %s of '%s'", newest.number, tag, image_id)

    def _unknown_to_index(self, image_id: str, tag: str) -> LabelVersion | None:
        """The newest version of a label where the file of the label is that one, and the index says another, or none.

        Where the file is another, some program replaced it, or that version never became the label.
        """
        label = self._datastore.label(image_id, tag)
        versions = self.history.versions(image_id, tag)
        file = self.labels_folder / tag / (image_id + LABEL_EXTENSION)
        if label is None or not versions or label.info.get(VERSION) == versions[-1].number or not file.is_file():
            return None
        return versions[-1] if hashlib.sha256(file.read_bytes()).hexdigest() == versions[-1].sha256 else None
