"""Images that a viewer sends for a while: not among the studies, forgotten when unused.

A session is a folder named by its id. It holds the image, and ``session.json`` once the image has
been decoded: a folder without that file is no session, but may become one, in this process or in
another that serves the same folder. The time of change of ``session.json`` is that of the last
access, so sessions outlive a restart of the server.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepgrow3d_app.errors import Busy, InvalidRequest, NotFound
from deepgrow3d_app.serving.archive import unzip
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.identifiers import checked_session_id
from deepgrow3d_app.serving.incoming import is_abandoned, make_again
from deepgrow3d_app.serving.studies_index import IMAGE_EXTENSIONS
from deepgrow3d_app.serving.uploads import Upload
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import extension_of

logger = logging.getLogger(__name__)

INFO_FILE = "session.json"


@dataclass(frozen=True, slots=True)
class Session:
    """One image of a viewer.

    Attributes:
        session_id: a UUID.
        image: a volume file, or a folder with one DICOM series.
        created_ts, last_access_ts: seconds since 1970.
        expiry_s: how long after its last access it is kept.
    """

    session_id: str
    image: Path
    created_ts: int
    last_access_ts: int
    expiry_s: int

    @property
    def folder(self) -> Path:
        """What is removed with the session."""
        return self.image.parent

    @property
    def is_expired(self) -> bool:
        """Whether it was not used for longer than ``expiry_s``."""
        return self.last_access_ts + self.expiry_s < time.time()

    def to_json(self) -> dict[str, Any]:
        """What MONAI Label tells about a session, key by key."""
        return {
            "name": self.session_id,
            "path": str(self.folder),
            "image": str(self.image),
            "meta": {},
            "create_ts": self.created_ts,
            "last_access_ts": self.last_access_ts,
            "expiry": self.expiry_s,
        }


class Sessions:
    """The sessions in a folder; safe to share between threads.

    Args:
        folder: where they are; made if it is missing.
        volumes: what decodes an image before it is accepted, and has it ready for the first click.
        log: how masks were made; forgets about a session with the session.
        expiry_s: the longest time that an unused session is kept.
        max_bytes: bound on all images together.
        max_image_bytes: bound on what one archive may unpack to.
    """

    def __init__(
        self,
        folder: Path,
        volumes: VolumeCache,
        log: ClickLog,
        *,
        expiry_s: int,
        max_bytes: int,
        max_image_bytes: int,
    ) -> None:
        self._folder = folder
        self._volumes = volumes
        self._log = log
        self._expiry_s = expiry_s
        self._max_bytes = max_bytes
        self._max_image_bytes = max_image_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, uploads: Sequence[Upload], *, expiry_s: int = 0, uncompress: bool = False) -> Session:
        """Keep an image: one volume file, the files of one DICOM series, or a zip archive with either.

        Args:
            uploads: at least one.
            expiry_s: 0 for the longest time that sessions are kept; never longer than that.
            uncompress: whether the one upload is a zip archive.

        Raises:
            UnreadableVolume, UnsupportedVolume: not one 3-D image.
            InvalidRequest: several volumes, or an archive that cannot be opened.
            Busy: the sessions take up all the room they may.
        """
        session_id = str(uuid.uuid4())
        folder = self._folder / session_id
        make_again(self._folder)
        self._make_room()
        try:
            folder.mkdir()
            image = self._store(uploads, folder, uncompress)
            self._volumes.get(image)
            now = int(time.time())
            expiry_s = min(expiry_s, self._expiry_s) or self._expiry_s
            info = {"image": image.name, "created_ts": now, "expiry_s": expiry_s}
            replace_file(folder / INFO_FILE, io.BytesIO(json.dumps(info).encode()))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Session(session_id, image, now, now, expiry_s)

    def get(self, session_id: str, *, touch: bool = False) -> Session:
        """The session ``session_id``; ``touch`` keeps it for another while.

        Raises:
            NotFound: there is none, or it has expired.
        """
        session = self._read(checked_session_id(session_id))
        if session is None or session.is_expired:
            raise NotFound(f"There is no session '{session_id}' (any more). Upload the image again with PUT /session/.")
        if touch:
            os.utime(session.folder / INFO_FILE)
        return session

    def remove(self, session_id: str) -> Session:
        """Forget the session ``session_id``, and return what it was.

        Raises:
            NotFound: there is none, or it has expired.
        """
        session = self.get(session_id)
        self._forget(session.folder, session)
        return session

    def remove_expired(self) -> int:
        """Forget what was not used for too long, and what an interrupted upload left; returns how many."""
        removed = 0
        for folder in self._folders():
            session = self._read(folder.name)
            is_over = is_abandoned(folder) if session is None else session.is_expired
            if is_over:
                self._forget(folder, session)
                removed += 1
        return removed

    def _forget(self, folder: Path, session: Session | None) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if session is not None:
            self._volumes.forget(session.image)
            self._log.forget(str(session.image))

    def _read(self, session_id: str) -> Session | None:
        folder = self._folder / session_id
        try:
            last_access_ts = int((folder / INFO_FILE).stat().st_mtime)
            info = json.loads((folder / INFO_FILE).read_bytes())
            return Session(
                session_id, folder / info["image"], int(info["created_ts"]), last_access_ts, int(info["expiry_s"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _folders(self) -> Iterator[Path]:
        """Folders that are ours by their names; whatever else lies there is left alone."""
        try:
            found = list(self._folder.iterdir())
        except OSError:
            return
        for folder in found:
            try:
                checked_session_id(folder.name)
            except NotFound:
                continue
            yield folder

    def _make_room(self) -> None:
        self.remove_expired()
        n_bytes = 0
        for file in self._folder.rglob("*"):
            with contextlib.suppress(OSError):  # removed meanwhile
                n_bytes += file.stat().st_size
        if n_bytes >= self._max_bytes:
            raise Busy(
                f"The sessions take up {n_bytes} bytes, the limit is {self._max_bytes}. "
                "Delete sessions with DELETE /session/ID, or try again when some have expired."
            )

    def _store(self, uploads: Sequence[Upload], folder: Path, uncompress: bool) -> Path:
        """Write what was sent into ``folder``, under names of ours."""
        received = folder / "upload"
        received.mkdir()
        if uncompress:
            if len(uploads) != 1:
                raise InvalidRequest(f"uncompress=true came with {len(uploads)} files. Send one zip archive.")
            files = unzip(uploads[0].content, received, self._max_image_bytes)
        else:
            files = [(upload.name, received / f"{number:05d}") for number, upload in enumerate(uploads)]
            for upload, (_, path) in zip(uploads, files, strict=True):
                upload.write_to(path)
        if not files:
            raise InvalidRequest("There is no image in the upload. Send a volume, or the files of one DICOM series.")
        extensions = [extension_of(name) if name else ".nii.gz" for name, _ in files]
        if len(files) == 1 and extensions[0] in IMAGE_EXTENSIONS:
            image = folder / f"image{extensions[0]}"
            files[0][1].rename(image)
            received.rmdir()
            return image
        if any(extensions):
            raise InvalidRequest(
                f"The upload holds {len(files)} files, such as '{files[0][0]}'. "
                f"Send one image ({', '.join(IMAGE_EXTENSIONS)}), or the files of one DICOM series."
            )
        return received
