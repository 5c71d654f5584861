"""The index of the studies folder, ``datastore_v2.json``: which images there are, and their labels.

MONAI Label changes its index in place while other threads read it, and rewrites the file in place.
Here a change is made on a draft and shown, in memory as on disk, when it is complete. From reading
the file until it is replaced, the change holds the lock of the folder, so that two servers never lose
each other's entries.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock
from monailabel.datastore.local import ImageLabelModel, LocalDatastore, LocalDatastoreModel

from deepgrow3d_app.errors import InvalidRequest, NotAllowed, NotFound
from deepgrow3d_app.serving.file_version import FileVersion, file_version
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.volume.atomic_file import settle_folder, written_beside
from deepgrow3d_app.volume.files import EXTENSIONS, extension_of

logger = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (".nii.gz", ".nii", ".nrrd")


class _Draft(threading.local):
    """The index that this thread is changing, if it is, and what comes with the change."""

    index: LocalDatastoreModel | None = None
    held: contextlib.ExitStack
    moves: list[Callable[[], object]]


class StudiesIndex(LocalDatastore):  # type: ignore[misc]
    """MONAI Label's datastore of a folder, safe to share between threads and processes.

    Args:
        studies: the folder.
        auto_reload: whether files that others put there or take away are noticed at once.
        read_only: whether nothing may be changed; what others put there is shown all the same.
        images_dir: where below the folder the images lie.

    Raises:
        InvalidRequest: the index is damaged.
    """

    def __init__(self, studies: Path, *, auto_reload: bool, read_only: bool, images_dir: str = ".") -> None:
        self._guard = threading.RLock()
        self._file_lock = FileLock(studies / ".lock")
        self._version: FileVersion = ()
        self._draft = _Draft()
        self._is_read_only = read_only
        self._shown: LocalDatastoreModel
        try:
            super().__init__(
                str(studies),
                images_dir=images_dir,
                extensions=[f"*{extension}" for extension in IMAGE_EXTENSIONS],
                auto_reload=auto_reload,
                read_only=False,  # that would not even look for files
            )
        except ValueError as error:
            raise InvalidRequest(
                f"The index of the studies, '{studies / 'datastore_v2.json'}', is damaged. "
                "Move it away and start again: images and labels are found by their files."
            ) from error
        if auto_reload:
            self._handler.on_moved = self._on_moved_event

    def refresh(self) -> None:
        """Bring the index in line with the files."""
        self._reconcile_datastore()

    @property
    def images_folder(self) -> Path:
        """Where the images lie."""
        return Path(self._datastore.image_path())

    @property
    def labels_folder(self) -> Path:
        """Where the labels lie, in a folder for each tag."""
        return Path(self._datastore.label_path(None))

    @contextlib.contextmanager
    def editing(self) -> Iterator[LocalDatastoreModel]:
        """The index, to be changed by this thread of this process alone.

        It is saved and shown to others at the end of the block; an error in the block leaves it as it was.
        Files that belong to the change are written by :meth:`_written_with_index` and moved by :meth:`_at_the_end`:
        when there is room for all of them and for the index.

        Raises:
            NotAllowed: the studies are read-only.
        """
        if self._is_read_only:
            raise NotAllowed(
                "The studies are read-only (MONAI_LABEL_DATASTORE_READ_ONLY): nothing was changed. "
                "Start the server without that variable to save."
            )
        with self._locked():
            self._init_from_datastore_file()
            with self._drafting(), contextlib.ExitStack() as held:
                self._draft.held = held
                yield self._datastore
                self._update_datastore_file()

    def _written_with_index(self, path: Path, content: BinaryIO) -> None:
        """Give ``path`` the rest of ``content`` when the index that is being changed is saved, or not at all."""
        partial = self._draft.held.enter_context(written_beside(path, content))

        def move() -> None:
            os.replace(partial, path)
            settle_folder(path.parent)

        self._at_the_end(move)

    def _at_the_end(self, move: Callable[[], object]) -> None:
        """Call ``move``, which needs no room on the disk, when the index that is being changed can be saved."""
        self._draft.moves.append(move)

    def _if_it_fails(self, undo: Callable[[], object]) -> None:
        """Call ``undo`` where the index that is being changed is not saved."""

        def undo_after(kind: type[BaseException] | None, *_: object) -> None:
            if kind is not None:
                undo()

        self._draft.held.push(undo_after)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads and, where anything can be changed, processes out; may be nested."""
        with self._guard, contextlib.nullcontext() if self._is_read_only else self._file_lock:
            yield

    @contextlib.contextmanager
    def _drafting(self) -> Iterator[None]:
        self._draft.index = self._shown.model_copy(deep=True)
        self._draft.moves = []
        try:
            yield
            self._shown = self._draft.index
        finally:
            self._draft.index = None

    # What follows replaces parts of LocalDatastore that its other methods call.

    @property
    def _datastore(self) -> LocalDatastoreModel:
        return self._shown if self._draft.index is None else self._draft.index

    @_datastore.setter
    def _datastore(self, index: LocalDatastoreModel) -> None:
        if self._draft.index is None:
            self._shown = index
        else:
            self._draft.index = index

    def _to_id(self, file: str) -> tuple[str, str]:
        n = len(file) - len(extension_of(file))
        return file[:n], file[n:]

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """Files with an extension of ours; no hidden ones, and no segmentations among the images."""
        known = IMAGE_EXTENSIONS if Path(path) == self.images_folder else EXTENSIONS
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
        return {name: name for name in names if extension_of(name) in known and _is_text(name)}

    def _add_non_existing_labels(self, tag: str) -> int:
        """Labels that lie in the folder of ``tag``; it is no tag where the index could not hold it, or it is hidden."""
        if tag.startswith(".") or not _is_text(tag):
            return 0
        count: int = super()._add_non_existing_labels(tag)
        return count

    def _reconcile_datastore(self) -> None:
        with self._locked():
            self._init_from_datastore_file()
            with self._drafting():
                super()._reconcile_datastore()

    def _on_any_event(self, event: object) -> None:
        logger.debug("The studies changed: %s", event)
        try:
            self.refresh()
        except OSError:  # the watching thread must outlive a folder that is away for a moment
            logger.exception("The studies cannot be listed")

    def _on_modify_event(self, event: Any) -> None:
        if event.src_path == self._datastore_config_path:
            self._read_again()

    def _on_moved_event(self, event: Any) -> None:
        """A file got its name in one step: the index by any server, an image by whoever copies with care."""
        if event.dest_path == self._datastore_config_path:
            self._read_again()
        else:
            self._on_any_event(event)

    def look_again(self) -> None:
        """Know what other servers on the folder changed since, where no watcher told it, or not yet."""
        if file_version(Path(self._datastore_config_path)) not in ((), self._version):  # mostly, nobody waits
            self._init_from_datastore_file()

    def _read_again(self) -> None:
        try:
            self._init_from_datastore_file()
        except OSError:  # as above
            logger.exception("The index of the studies cannot be read")

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        path = Path(self._datastore_config_path)
        with self._locked():
            version = file_version(path)
            if version in ((), self._version):
                return
            try:
                index = LocalDatastoreModel.model_validate_json(path.read_bytes())
            except ValueError:
                if throw_exception:
                    raise
                logger.exception("The index of the studies is damaged")
                self._version = version  # what is in memory counts: it is not tried, and told, again
                return
            index.base_path = self._datastore_path
            self._datastore = index
            self._version = version

    def _update_datastore_file(self, lock: bool = True) -> None:
        if self._is_read_only:
            return  # what was found is shown, and not kept
        path = Path(self._datastore_config_path)
        with self._locked():
            # What cannot be read again must not be written: NaN, and lone surrogates, which are no UTF-8, raise here.
            index = self._datastore.model_dump(exclude={"base_path"})
            content = json.dumps(index, indent=2, default=str, ensure_ascii=False, allow_nan=False)
            with written_beside(path, io.BytesIO(content.encode())) as partial:
                if self._draft.index is not None:
                    for move in self._draft.moves:
                        move()
                os.replace(partial, path)
            settle_folder(path.parent)
            self._version = file_version(path)


def entry_of(index: LocalDatastoreModel, image_id: str) -> ImageLabelModel:
    """What ``index`` has of an image; :class:`NotFound` where that is nothing."""
    entry = index.objects.get(image_id)
    if entry is None:
        raise no_image(image_id)
    return entry


def no_image(image_id: str) -> NotFound:
    """There is no such image."""
    return NotFound(f"There is no image {shown(image_id)} among the studies. GET /datastore/?output=all lists them.")


def no_label(image_id: str, tag: str) -> NotFound:
    """There is no such label."""
    return NotFound(
        f"The image {shown(image_id)} has no label {shown(tag)}. GET /datastore/?output=all lists images and labels."
    )


def _is_text(name: str) -> bool:
    """Whether a name is text: one in bytes of another encoding could not stand in the index."""
    try:
        name.encode()
    except UnicodeEncodeError:
        logger.warning("%r is left out of the studies: its name is no UTF-8. Rename it.", name)
        return False
    return True
