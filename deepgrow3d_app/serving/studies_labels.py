"""Saving labels of the studies: decoded before they are stored, every version kept."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel

from deepgrow3d_app.errors import Busy, InvalidInput, InvalidRequest, Superseded
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.file_version import FileVersion, file_version
from deepgrow3d_app.serving.identifiers import checked_name, shown
from deepgrow3d_app.serving.label_grid import read_label
from deepgrow3d_app.serving.label_history import LABEL_EXTENSION, SAVED_BY, LabelVersion
from deepgrow3d_app.serving.label_names import check_names, check_values, segments_of, with_values
from deepgrow3d_app.serving.saved_clicks import answered_clicks, sent_clicks
from deepgrow3d_app.serving.studies_files import OURS, VERSION, StudiesFiles
from deepgrow3d_app.serving.studies_index import entry_of
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import encode_mask, read_mask
from deepgrow3d_app.volume.geometry import Index
from deepgrow3d_app.volume.volume import Mask

BASED_ON = "based_on"
"""In what a client sends: the version that it started from."""

IMAGE_ETAG = "image_etag"
"""In what a client sends: the ETag of the image's file, as it was downloaded."""

CLICK_SETS = "click_sets"
"""In what a client sends: by structure, the clicks that made its mask."""

MAX_CLIENT = 200


@dataclass(frozen=True, slots=True)
class Publication:
    """A label that was stored elsewhere, and is to become the label here.

    Attributes:
        info: what is to be remembered of that.
        complete: called when it is the label.
        take_back: called when it could not be made the label.
    """

    info: Mapping[str, Any] = field(default_factory=dict)
    complete: Callable[[], None] = lambda: None
    take_back: Callable[[], None] = lambda: None


class StudiesLabels(StudiesFiles):
    """The labels of a folder's images, ``labels/TAG/ID.nii.gz``; safe to share between threads.

    Args:
        studies: the folder.
        volumes: where decoded images are kept.
        log: how masks were made.
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
        self._log = log
        self._model_digest = model_digest
        self._guard_of_saves = threading.Lock()
        self._saves: dict[str, threading.Lock] = {}
        super().__init__(studies, volumes, auto_reload=auto_reload, read_only=read_only, images_dir=images_dir)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label, and return the id of its image. See :meth:`save_version`."""
        self.save_version(image_id, label_filename, label_tag, label_info)
        return image_id

    def save_version(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> LabelVersion:
        """Store the label map ``label_filename`` as the label ``label_tag`` of ``image_id``; returns its version.

        The earlier label is there until the new one is, stays where the new one is refused, and stays in the history.
        ``label_info`` may say which version the annotator started from (``based_on``), and which clicks made each mask
        (``click_sets``, see :func:`~deepgrow3d_app.serving.saved_clicks.sent_clicks`): the client knows what was
        taken back. Without them, or where they are malformed, the history has what was last answered to ``client_id``.
        It may also say which image it was drawn on (``image_etag``).

        Raises:
            NotFound: there is no such image.
            InvalidRequest: a tag outside the grammar, or a ``label_info`` that does not name values.
            UnreadableVolume, UnsupportedVolume: not a label map.
            LabelMismatch: not on the grid of the image, or with values that ``label_info`` does not name.
            Superseded: somebody saved another version since, or replaced the image.
            Busy: the image was replaced while the label was decoded.
        """
        tag = checked_name(str(getattr(label_tag, "value", label_tag)), "a label's tag")
        check_names(label_info)
        _check_based_on(label_info)
        image_file = self.image_file(image_id)
        version = file_version(image_file)
        self.check_etag(image_id, label_info.get(IMAGE_ETAG))
        volume = self._volumes.get(image_file)
        mask = read_label(Path(label_filename), volume)
        check_values(mask, label_info)
        content = encode_mask(mask, volume.affine, LABEL_EXTENSION)
        record = self._record(str(image_file), version, label_info, volume.shape)
        not_kept = OURS | {BASED_ON, IMAGE_ETAG, CLICK_SETS}
        label_info = {name: value for name, value in with_values(label_info).items() if name not in not_kept}
        with self._one_save_at_a_time(image_id):
            self.look_elsewhere(image_id, tag)
            self._refuse_outdated(image_id, tag, record)
            published = self._publish(image_id, tag, mask, label_info)
            try:
                with self.editing() as index:
                    image = entry_of(index, image_id)
                    if file_version(image_file) != version:
                        raise Busy(
                            f"The image {shown(image_id)} was replaced meanwhile. Check the label, then send it again."
                        )
                    self._refuse_outdated(image_id, tag, record)
                    info = {**label_info, **published.info}
                    saved = self._put_label(image, image_id, tag, content, info, record)
            except Exception:
                published.take_back()
                raise
            published.complete()
        return saved

    def _put_label(
        self,
        image: ImageLabelModel,
        image_id: str,
        tag: str,
        content: bytes,
        info: Mapping[str, Any],
        record: LabelVersion,
    ) -> LabelVersion:
        """Make ``content`` the label ``tag`` of the index's ``image``; it is in the history before it is the label.

        All is written before anything is moved to its place, so that a full disk leaves the label of before.
        """
        folder = self.labels_folder / tag
        name = image_id + LABEL_EXTENSION
        replaced = image.labels.get(tag)
        found = folder / (image_id + replaced.ext) if replaced else None
        if replaced and found and found.is_file():
            self.history.add_found(image_id, tag, _as_nifti(found), replaced.info, found.stat().st_mtime)
        version = self.history.add(image_id, tag, content, record.model_copy(update={"info": dict(info)}))
        self._if_it_fails(lambda: self.history.remove(image_id, tag, version.number))
        kept = {**info, "ts": int(time.time()), "name": name, VERSION: version.number}
        image.labels[tag] = DataModel(info=kept, ext=LABEL_EXTENSION)
        folder.mkdir(parents=True, exist_ok=True)
        self._written_with_index(folder / name, io.BytesIO(content))
        if replaced and replaced.ext != LABEL_EXTENSION:
            former = folder / (image_id + replaced.ext)
            self._at_the_end(lambda: former.unlink(missing_ok=True))
        return version

    @contextlib.contextmanager
    def _one_save_at_a_time(self, image_id: str) -> Iterator[None]:
        """What was checked before a label is published stays true until it is stored."""
        with self._guard_of_saves:
            lock = self._saves.setdefault(image_id, threading.Lock())
        with lock:
            yield

    def _record(self, image: str, version: FileVersion, label_info: Mapping[str, Any], shape: Index) -> LabelVersion:
        """Who saves, with which network, and which clicks made it."""
        client = str(label_info.get("client_id") or "")[:MAX_CLIENT]
        saved_by = str(label_info.get(SAVED_BY) or "")
        names = {segment.name for segment in segments_of(label_info)}
        clicks = sent_clicks(label_info.get(CLICK_SETS), names, shape)
        if clicks is None:
            clicks = answered_clicks(self._log, image, version, {"", *names}, client, saved_by)
        info = {BASED_ON: label_info[BASED_ON]} if BASED_ON in label_info else {}
        return LabelVersion(
            client_id=client,
            saved_by=saved_by,
            model_sha256=self._model_digest(),
            clicks=clicks,
            info=info,
        )

    def _refuse_outdated(self, image_id: str, tag: str, record: LabelVersion) -> None:
        if BASED_ON not in record.info:
            return
        newest = self.version_of(image_id, tag)
        if record.info[BASED_ON] != newest:
            versions = {version.number: version for version in self.history.versions(image_id, tag)}
            known = versions[newest].by if newest in versions else ""
            by = shown(known) if known else "somebody else"
            raise Superseded(
                f"The label {shown(tag)} of {shown(image_id)} is at version {newest}, saved by {by}, yours is based "
                f"on {record.info[BASED_ON]!r}. Look at that version (GET /datastore/label), then save with based_on "
                f"{newest}."
            )

    def look_elsewhere(self, image_id: str, tag: str) -> None:
        """Make the index know the label that is about to be replaced, where somebody else stores labels too."""

    def _publish(self, image_id: str, tag: str, mask: Mask, label_info: dict[str, Any]) -> Publication:
        """Store a label elsewhere before it is stored here: nowhere, in a folder."""
        return Publication()


def _check_based_on(label_info: Mapping[str, Any]) -> None:
    version = label_info.get(BASED_ON, 0)
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise InvalidRequest(
            f"{BASED_ON} is {shown(repr(version))}. Send the number of the version that the label was drawn on, 0 for "
            "none; or leave it out."
        )


def _as_nifti(file: Path) -> bytes:
    """The label in ``file``, of whatever format, as .nii.gz; what cannot be read as it is."""
    if not file.name.endswith(LABEL_EXTENSION):
        with contextlib.suppress(InvalidInput):
            return encode_mask(*read_mask(file), LABEL_EXTENSION)
    return file.read_bytes()
