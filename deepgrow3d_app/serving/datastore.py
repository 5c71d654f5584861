"""The studies folder: MONAI Label's own datastore, with everything that enters it decoded first."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastoreModel

from deepgrow3d_app.cases.labelled_case import voxel_counts
from deepgrow3d_app.errors import Busy, InvalidInput, InvalidRequest, LabelMismatch, NotFound, Superseded
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.click_memory import Subject
from deepgrow3d_app.serving.dicomweb.final_label import segments_of
from deepgrow3d_app.serving.file_version import FileVersion, file_version
from deepgrow3d_app.serving.identifiers import checked_name, shown
from deepgrow3d_app.serving.label_grid import read_label
from deepgrow3d_app.serving.label_history import LABEL_EXTENSION, SAVED_BY, ClickSets, LabelHistory, LabelVersion
from deepgrow3d_app.serving.studies_index import IMAGE_EXTENSIONS, StudiesIndex
from deepgrow3d_app.volume.atomic_file import replace_file, written_beside
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import encode_mask, extension_of, read_mask, read_volume
from deepgrow3d_app.volume.grid import check_grid
from deepgrow3d_app.volume.volume import Mask, Volume

logger = logging.getLogger(__name__)

HISTORY_FOLDER = Path(".deepgrow3d", "label-history")
VERSION = "version"
"""In a label's info: which version it is."""

BASED_ON = "based_on"
"""In what a client sends: the version that it started from."""

MAX_CLIENT = 200


class StudiesDatastore(StudiesIndex):
    """The images of a folder and their labels, ``labels/TAG/ID.nii.gz``; safe to share between threads.

    Args:
        studies: the folder.
        volumes: where decoded images are kept.
        log: how masks were made; forgets about an image with the image.
        model_digest: tells the sha256 of the served network, for the history of labels.
        auto_reload, read_only, images_dir: see :class:`StudiesIndex`.

    Raises:
        InvalidRequest: the index of the folder is damaged.
    """

    def __init__(
        self,
        studies: Path,
        volumes: VolumeCache,
        log: ClickLog,
        *,
        auto_reload: bool = True,
        read_only: bool = False,
        images_dir: str = ".",
        model_digest: Callable[[], str] = lambda: "",
    ) -> None:
        self._volumes = volumes
        self._log = log
        self._model_digest = model_digest
        self.history = LabelHistory(studies / HISTORY_FOLDER)
        super().__init__(studies, auto_reload=auto_reload, read_only=read_only, images_dir=images_dir)

    def image_file(self, image_id: str) -> Path:
        """The file of the image ``image_id``.

        Raises:
            NotFound: there is no such image. A path is no id, whether there is a file or not.
        """
        path = self.get_image_uri(image_id)
        if not path or not os.path.isfile(path):
            raise _no_image(image_id)
        return Path(path)

    def image_download(self, image_id: str) -> Path:
        """One file with the image ``image_id``, for viewers: its own.

        Raises:
            NotFound: there is no such image.
        """
        return self.image_file(image_id)

    def label_file(self, image_id: str, tag: str) -> Path:
        """The file of the label ``tag`` of the image ``image_id``.

        Raises:
            NotFound: there is no such label.
        """
        path = self.get_label_uri(image_id, tag)
        if not path or not os.path.isfile(path):
            raise _no_label(image_id, tag)
        return Path(path)

    def get_label_tags_of(self, image_id: str) -> list[str]:
        """The tags of the labels of the image ``image_id``."""
        image = self._datastore.objects.get(image_id)
        return [] if image is None else sorted(image.labels)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Copy the file ``image_filename`` into the studies as ``image_id``, and return the id.

        An image of the same id is replaced, and keeps its labels where they fit.

        Raises:
            InvalidRequest: an id outside the grammar, or a format that images cannot have.
            UnreadableVolume, UnsupportedVolume: not one 3-D image.
            LabelMismatch: the image that has this id now has labels on another grid.
        """
        source = Path(image_filename)
        extension = extension_of(source.name)
        if extension not in IMAGE_EXTENSIONS:
            raise InvalidRequest(f"{shown(source.name)} is no image. Send one of {', '.join(IMAGE_EXTENSIONS)}.")
        image_id = checked_name(image_id or source.name[: -len(extension)], "an image id")
        volume = read_volume(source)
        name = image_id + extension
        destination = self.images_folder / name
        with source.open("rb") as content, written_beside(destination, content) as partial, self.editing() as index:
            replaced = index.objects.get(image_id)
            labels = dict(replaced.labels) if replaced else {}
            self._check_labels_fit(image_id, labels, volume)
            info = {**image_info, "ts": int(time.time()), "name": name}
            index.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=extension), labels=labels)
            os.replace(partial, destination)
        if replaced and replaced.image.ext != extension:
            (self.images_folder / (image_id + replaced.image.ext)).unlink(missing_ok=True)
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store the label map ``label_filename`` as the label ``label_tag`` of ``image_id``, and return the id.

        The earlier label is there until the new one is, stays where the new one is refused, and stays in the history.
        ``label_info`` may say which version the annotator started from (``based_on``).

        Raises:
            NotFound: there is no such image.
            InvalidRequest: a tag outside the grammar.
            UnreadableVolume, UnsupportedVolume: not a label map.
            LabelMismatch: not on the grid of the image, or with values that ``label_info`` does not name.
            Superseded: somebody saved another version since.
            Busy: the image was replaced while the label was decoded.
        """
        tag = checked_name(str(getattr(label_tag, "value", label_tag)), "a label's tag")
        image_file = self.image_file(image_id)
        version = file_version(image_file)
        volume = self._volumes.get(image_file)
        mask = read_label(Path(label_filename), volume)
        _check_values(mask, label_info)
        content = encode_mask(mask, volume.affine, LABEL_EXTENSION)
        record = self._record(str(image_file), version, label_info)
        label_info = {name: value for name, value in label_info.items() if name != BASED_ON}
        self._refuse_outdated(image_id, tag, record)
        published = self._publish(image_id, tag, mask, label_info)
        with self.editing() as index:
            image = _entry(index, image_id)
            if file_version(image_file) != version:
                raise Busy(f"The image {shown(image_id)} was replaced meanwhile. Check the label, then send it again.")
            self._refuse_outdated(image_id, tag, record)
            self._put_label(image, image_id, tag, content, {**label_info, **published}, record)
        return image_id

    def _put_label(
        self,
        image: ImageLabelModel,
        image_id: str,
        tag: str,
        content: bytes,
        info: Mapping[str, Any],
        record: LabelVersion,
    ) -> None:
        """Make ``content`` the label ``tag`` of the index's ``image``; it is in the history before it is the label."""
        folder = self.labels_folder / tag
        name = image_id + LABEL_EXTENSION
        replaced = image.labels.get(tag)
        if replaced:
            self.history.add_found(image_id, tag, folder / (image_id + replaced.ext), replaced.info)
        version = self.history.add(image_id, tag, content, record.model_copy(update={"info": dict(info)}))
        kept = {**info, "ts": int(time.time()), "name": name, VERSION: version.number}
        image.labels[tag] = DataModel(info=kept, ext=LABEL_EXTENSION)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, io.BytesIO(content))
        if replaced and replaced.ext != LABEL_EXTENSION:
            (folder / (image_id + replaced.ext)).unlink(missing_ok=True)

    def finish_saves(self) -> None:
        """After a kill between a label's file and the index: what is the label is also what the index says of it."""
        for image_id, tag, newest in self.history.newest():
            label = self._datastore.label(image_id, tag)
            file = self.labels_folder / tag / (image_id + LABEL_EXTENSION)
            if label is None or not file.is_file() or label.info.get(VERSION) == newest.number:
                continue
            if hashlib.sha256(file.read_bytes()).hexdigest() != newest.sha256:
                continue  # it was replaced by another program, or never became the label
            with self.editing() as index:
                kept = {**newest.info, "ts": int(newest.saved), "name": file.name, VERSION: newest.number}
                _entry(index, image_id).labels[tag] = DataModel(info=kept, ext=LABEL_EXTENSION)
            logger.warning("The save of %s of '%s' was cut off after its last write; it is finished", tag, image_id)

    def _record(self, image: str, version: FileVersion, label_info: Mapping[str, Any]) -> LabelVersion:
        """Who saves, with which network, and which clicks made it."""
        client = str(label_info.get("client_id") or "")[:MAX_CLIENT]
        clicks = {}
        for name in {"", *(segment.name for segment in segments_of(label_info))} if client else ():
            answered = self._log.history(Subject(image, version, (), name, f"/{client}"))
            if answered:
                last = sorted(answered[-1].clicks, key=lambda click: click.index)
                clicks[name] = ClickSets(
                    foreground=[click.index for click in last if click.is_positive],
                    background=[click.index for click in last if not click.is_positive],
                )
        info = {BASED_ON: label_info[BASED_ON]} if BASED_ON in label_info else {}
        return LabelVersion(
            client_id=client,
            saved_by=str(label_info.get(SAVED_BY) or ""),
            model_sha256=self._model_digest(),
            clicks=clicks,
            info=info,
        )

    def _refuse_outdated(self, image_id: str, tag: str, record: LabelVersion) -> None:
        if BASED_ON not in record.info:
            return
        label = self._datastore.label(image_id, tag)
        newest = 0 if label is None else int(label.info.get(VERSION) or 0)
        if record.info[BASED_ON] != newest:
            versions = {version.number: version for version in self.history.versions(image_id, tag)}
            by = shown(versions[newest].by) if newest in versions else "somebody else"
            raise Superseded(
                f"The label {shown(tag)} of {shown(image_id)} is at version {newest}, saved by {by}, yours is based "
                f"on {record.info[BASED_ON]!r}. Look at that version (GET /datastore/label), then save with based_on "
                f"{newest}."
            )

    def remove_image(self, image_id: str) -> None:
        """Remove the image ``image_id`` and its labels."""
        path = self.image_file(image_id)
        with self.editing() as index:
            for tag, label in _entry(index, image_id).labels.items():
                (self.labels_folder / tag / (image_id + label.ext)).unlink(missing_ok=True)
            self._volumes.forget(path)
            self._log.forget(str(path))
            self.history.forget(image_id)
            path.unlink(missing_ok=True)
            del index.objects[image_id]

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove the label ``label_tag`` of the image ``label_id``."""
        path = self.label_file(label_id, label_tag)
        with self.editing() as index:
            _entry(index, label_id).labels.pop(label_tag, None)
            path.unlink(missing_ok=True)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add ``info`` to what is known of the image ``image_id``."""
        with self.editing() as index:
            _entry(index, image_id).image.info.update(info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add ``info`` to what is known of the label ``label_tag`` of the image ``label_id``."""
        with self.editing() as index:
            label = index.label(label_id, label_tag)
            if label is None:
                raise _no_label(label_id, label_tag)
            label.info.update({name: value for name, value in info.items() if name != VERSION})
            if isinstance(number := label.info.get(VERSION), int):
                self.history.note(label_id, label_tag, number, label.info)

    def _publish(self, image_id: str, tag: str, mask: Mask, label_info: dict[str, Any]) -> dict[str, Any]:
        """Send a label elsewhere before it is stored, and return what is to be remembered of that: nothing here."""
        return {}

    def _check_labels_fit(self, image_id: str, labels: dict[str, DataModel], volume: Volume) -> None:
        for tag, label in labels.items():
            try:
                mask, affine = read_mask(self.labels_folder / tag / (image_id + label.ext))
                check_grid(mask.shape, affine, volume)
            except InvalidInput as error:  # noqa: PERF203 - each label has its own message
                raise LabelMismatch(
                    f"The image {shown(image_id)} has a label {shown(tag)} that does not lie on the new image. {error} "
                    "Choose another image id, or remove that label first."
                ) from error


def _check_values(mask: Mask, label_info: Mapping[str, Any]) -> None:
    """Refuse values that nothing names, where anything is named: nobody could tell later what they mean."""
    named = {segment.value for segment in segments_of(label_info)}
    unnamed = sorted(set(np.flatnonzero(voxel_counts(mask)).tolist()) - named - {0})
    if named and unnamed:
        raise LabelMismatch(
            f"The label has voxels of the value {', '.join(map(str, unnamed))}, and label_info names only "
            f"{', '.join(map(str, sorted(named)))}. Name every structure, or erase those voxels."
        )


def _entry(index: LocalDatastoreModel, image_id: str) -> ImageLabelModel:
    entry = index.objects.get(image_id)
    if entry is None:
        raise _no_image(image_id)
    return entry


def _no_image(image_id: str) -> NotFound:
    return NotFound(f"There is no image {shown(image_id)} among the studies. GET /datastore/?output=all lists them.")


def _no_label(image_id: str, tag: str) -> NotFound:
    return NotFound(
        f"The image {shown(image_id)} has no label {shown(tag)}. GET /datastore/?output=all lists images and labels."
    )
