"""The studies folder: MONAI Label's own datastore, with everything that enters it decoded first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel

from deepgrow3d_app.errors import InvalidInput, InvalidRequest, LabelMismatch
from deepgrow3d_app.serving.identifiers import checked_name, shown
from deepgrow3d_app.serving.studies_index import IMAGE_EXTENSIONS, entry_of
from deepgrow3d_app.serving.studies_labels import StudiesLabels
from deepgrow3d_app.volume.atomic_file import written_beside
from deepgrow3d_app.volume.files import extension_of, read_mask, read_volume
from deepgrow3d_app.volume.grid import check_grid
from deepgrow3d_app.volume.volume import Volume

OURS_OF_IMAGES = frozenset({"id", "weight", "path", "name", "ts", "strategy"})
"""In an image's info: what clients cannot set. Viewers are told by it which image to annotate next."""


class StudiesDatastore(StudiesLabels):
    """The images of a folder and their labels; safe to share between threads. See :class:`StudiesLabels`."""

    def image_download(self, image_id: str) -> Path:
        """One file with the image ``image_id``, for viewers: its own.

        Raises:
            NotFound: there is no such image.
        """
        return self.image_file(image_id)

    def add_image(
        self,
        image_id: str,
        image_filename: str,
        image_info: dict[str, Any],
        may_replace: Callable[[], object] = lambda: None,
    ) -> str:
        """Copy the file ``image_filename`` into the studies as ``image_id``, and return the id.

        An image of the same id is replaced, and keeps its labels where they fit.

        Args:
            image_id: "" for the name of the file.
            image_filename: the file.
            image_info: what is known of the image.
            may_replace: called where an image would be replaced; raises where it may not.

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
            if replaced or destination.exists():
                may_replace()
            labels = dict(replaced.labels) if replaced else {}
            self._check_labels_fit(image_id, labels, volume)
            sent = {key: value for key, value in image_info.items() if key not in OURS_OF_IMAGES}
            info = {**sent, "ts": int(time.time()), "name": name}
            index.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=extension), labels=labels)
            self._at_the_end(lambda: os.replace(partial, destination))
            if replaced and replaced.image.ext != extension:
                former = self.images_folder / (image_id + replaced.image.ext)
                self._at_the_end(lambda: former.unlink(missing_ok=True))
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Remove the image ``image_id`` and its labels."""
        with self.editing() as index:
            path = self.image_file(image_id)  # of now: another server may have replaced it by one of another format
            labels = entry_of(index, image_id).labels.items()
            files = [self.labels_folder / tag / (image_id + label.ext) for tag, label in labels]
            del index.objects[image_id]

            def remove() -> None:  # the image last: what a kill leaves must not be found beside another image
                for file in files:
                    file.unlink(missing_ok=True)
                self.history.forget(image_id)
                self._volumes.forget(path)
                self._log.forget(str(path))
                path.unlink(missing_ok=True)

            self._at_the_end(remove)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add ``info`` to what is known of the image ``image_id``."""
        with self.editing() as index:
            sent = {name: value for name, value in info.items() if name not in OURS_OF_IMAGES}
            entry_of(index, image_id).image.info.update(sent)

    def hand_out(self, image_id: str, strategy: str, client_id: str | None) -> dict[str, Any]:
        """Note that ``strategy`` gave the image ``image_id`` to somebody, and return what is known of the image.

        Nothing is noted where the studies are read-only.
        """
        if self._is_read_only:
            return dict(entry_of(self._datastore, image_id).image.info)
        with self.editing() as index:
            info = entry_of(index, image_id).image.info
            before = info.get("strategy")
            given = {"ts": int(time.time()), "client_id": client_id}
            info["strategy"] = {**(before if isinstance(before, dict) else {}), strategy: given}
        return dict(info)

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
