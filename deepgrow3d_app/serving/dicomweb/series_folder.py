"""Series that were fetched: one folder each, whole or not there, bounded in size."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepgrow3d_app.errors import ServerFault
from deepgrow3d_app.serving.dicomweb.listed import ImageSeries
from deepgrow3d_app.serving.dicomweb.pacs import Pacs, is_uid
from deepgrow3d_app.serving.incoming import remove_if_abandoned
from deepgrow3d_app.volume.atomic_folder import PARTIAL_SUFFIX, replaced_folder


class SeriesFolder:
    """The folder that fetched series are kept in; safe to share between threads.

    Args:
        folder: made where it is missing.
        pacs: where series are fetched from.
        max_bytes: bound on all series together. Those that were used longest ago are removed first, and fetched again
            when somebody asks for them.
    """

    def __init__(self, folder: Path, pacs: Pacs, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(f".*{PARTIAL_SUFFIX}"):
            remove_if_abandoned(partial)  # by age: another server may be fetching into one
        self._folder = folder
        self._pacs = pacs
        self._max_bytes = max_bytes
        self._guard = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}

    def path(self, series_uid: str) -> Path:
        """Where the series is when it has been fetched."""
        return self._folder / series_uid

    def has(self, series: ImageSeries) -> bool:
        """Whether the series has been fetched, with as many instances as the server lists."""
        try:
            count = sum(entry.is_file() for entry in os.scandir(self.path(series.series_uid)))
        except OSError:
            return False
        return count > 0 and series.n_instances in (0, count)

    def fetched(self, series: ImageSeries) -> Path:
        """The folder of the series, fetched when it is not there, or not with all that the server lists.

        Raises:
            ServerFault: it is not there, and the server does not send it.
        """
        path = self.path(series.series_uid)
        if not self.has(series):
            with self._alone(series.series_uid):
                if not self.has(series):  # nobody fetched it meanwhile
                    self._fetch(series, path)
                    self._make_room(path)
        now = path.stat()
        os.utime(path, ns=(time.time_ns(), now.st_mtime_ns))  # used; not changed
        return path

    def _fetch(self, series: ImageSeries, path: Path) -> None:
        with replaced_folder(path) as partial:
            count = self._pacs.fetch(series.study_uid, series.series_uid, partial)
            if count == 0 or count < series.n_instances:
                raise ServerFault(
                    self._pacs.address.url,
                    f"it lists {series.n_instances} instances of the series {series.series_uid} and sent {count}",
                )

    def _make_room(self, kept: Path) -> None:
        folders = sorted(
            (folder for folder in self._folder.iterdir() if folder.is_dir() and is_uid(folder.name)),
            key=lambda folder: folder.stat().st_atime_ns,
        )
        sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
        total = sum(sizes.values())
        for folder in folders:
            if total <= self._max_bytes:
                return
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]

    @contextmanager
    def _alone(self, series_uid: str) -> Iterator[None]:
        """One fetch of a series at a time; different series are fetched side by side."""
        with self._guard:
            lock = self._fetching.setdefault(series_uid, threading.Lock())
        with lock:
            yield
