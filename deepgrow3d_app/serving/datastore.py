"""The studies folder: MONAI Label's own datastore, with everything that enters it decoded first."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastoreModel

from deepgrow3d_app.errors import Busy, InvalidInput, InvalidRequest, LabelMismatch, NotFound
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.file_version import file_version
from deepgrow3d_app.serving.identifiers import checked_name, shown
from deepgrow3d_app.serving.label_grid import read_label
from deepgrow3d_app.serving.studies_index import IMAGE_EXTENSIONS, StudiesIndex
from deepgrow3d_app.volume.atomic_file import replace_file, written_beside
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import encode_mask, extension_of, read_mask, read_volume
from deepgrow3d_app.volume.grid import check_grid
from deepgrow3d_app.volume.volume import Mask, Volume

LABEL_EXTENSION = ".nii.gz"
"""How every label is stored, whatever a viewer sends: one image and tag never have two files."""


class StudiesDatastore(StudiesIndex):
    """The images of a folder and their labels, ``labels/TAG/ID.nii.gz``; safe to share between threads.

    Args:
        studies: the folder.
        volumes: where decoded images are kept.
        log: how masks were made; forgets about an image with the image.
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
    ) -> None:
        self._volumes = volumes
        self._log = log
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

        The earlier label is there until the new one is, and stays where the new one is refused.

        Raises:
            NotFound: there is no such image.
            InvalidRequest: a tag outside the grammar.
            UnreadableVolume, UnsupportedVolume: not a label map.
            LabelMismatch: not on the grid of the image.
            Busy: the image was replaced while the label was decoded.
        """
        tag = checked_name(str(getattr(label_tag, "value", label_tag)), "a label's tag")
        image_file = self.image_file(image_id)
        version = file_version(image_file)
        volume = self._volumes.get(image_file)
        mask = read_label(Path(label_filename), volume)
        content = io.BytesIO(encode_mask(mask, volume.affine, LABEL_EXTENSION))
        published = self._publish(image_id, tag, mask, label_info)
        folder = self.labels_folder / tag
        name = image_id + LABEL_EXTENSION
        with self.editing() as index:
            image = _entry(index, image_id)
            if file_version(image_file) != version:
                raise Busy(f"The image {shown(image_id)} was replaced meanwhile. Check the label, then send it again.")
            replaced = image.labels.get(tag)
            info = {**label_info, **published, "ts": int(time.time()), "name": name}
            image.labels[tag] = DataModel(info=info, ext=LABEL_EXTENSION)
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / name, content)
        if replaced and replaced.ext != LABEL_EXTENSION:
            (folder / (image_id + replaced.ext)).unlink(missing_ok=True)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Remove the image ``image_id`` and its labels."""
        path = self.image_file(image_id)
        with self.editing() as index:
            for tag, label in _entry(index, image_id).labels.items():
                (self.labels_folder / tag / (image_id + label.ext)).unlink(missing_ok=True)
            self._volumes.forget(path)
            self._log.forget(str(path))
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
            label.info.update(info)

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
