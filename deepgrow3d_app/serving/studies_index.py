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
from monailabel.datastore.local import LocalDatastore, LocalDatastoreModel

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.file_version import FileVersion, file_version
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
        read_only: leave the index as it is at start-up.
        images_dir: where below the folder the images lie.

    Raises:
        InvalidRequest: the index is damaged.
    """

    def __init__(self, studies: Path, *, auto_reload: bool, read_only: bool, images_dir: str = ".") -> None:
        self._guard = threading.RLock()
        self._file_lock = FileLock(studies / ".lock")
        self._version: FileVersion = ()
        self._draft = _Draft()
        self._shown: LocalDatastoreModel
        try:
            super().__init__(
                str(studies),
                images_dir=images_dir,
                extensions=[f"*{extension}" for extension in IMAGE_EXTENSIONS],
                auto_reload=auto_reload,
                read_only=read_only,
            )
        except ValueError as error:
            raise InvalidRequest(
                f"The index of the studies, '{studies / 'datastore_v2.json'}', is damaged. "
                "Move it away and start again: images and labels are found by their files."
            ) from error

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
        """
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
        """Keep other threads and processes out; may be nested."""
        with self._guard, self._file_lock:
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
        return {name: name for name in names if extension_of(name) in known}

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
            self._init_from_datastore_file()

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
                return
            index.base_path = self._datastore_path
            self._datastore = index
            self._version = version

    def _update_datastore_file(self, lock: bool = True) -> None:
        path = Path(self._datastore_config_path)
        with self._locked():
            content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
            with written_beside(path, io.BytesIO(content.encode())) as partial:
                if self._draft.index is not None:
                    for move in self._draft.moves:
                        move()
                os.replace(partial, path)
            settle_folder(path.parent)
            self._version = file_version(path)
