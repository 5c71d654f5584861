"""Zip archives that clients send, opened without trusting a name or a size in them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.volume.atomic_file import COPY_BYTES

MAX_FILES = 20_000
MAX_ENTRIES = 3 * MAX_FILES
"""Folders are entries too, and macOS adds one for each file."""

MAX_DIRECTORY_BYTES = 320 * MAX_FILES
"""An entry takes 46 bytes and its path: three UIDs of 64 characters and what archivers note fit in this."""

ENTRY_SIGNATURE = b"PK\1\2"


def unzip(archive: BinaryIO, folder: Path, max_bytes: int) -> list[tuple[str, Path]]:
    """Write the files in ``archive`` into ``folder``, named by their number whatever the archive calls them.

    Args:
        archive: a zip file, open for reading.
        folder: an existing folder; it may hold a part of the files after an error.
        max_bytes: bound on all files together, counted while they are decompressed.

    Returns:
        (name in the archive without folders, path) for each file; folders and hidden files are left out.

    Raises:
        InvalidRequest: not a zip file, damaged, encrypted, or larger than the bounds.
    """
    try:
        with zipfile.ZipFile(_BoundedArchive(archive)) as opened:
            members = [member for member in opened.infolist() if _is_wanted(member)]
            if len(members) > MAX_FILES:
                raise InvalidRequest(
                    f"The archive holds {len(members)} files, over the limit of {MAX_FILES}. Send one series."
                )
            files = []
            left = max_bytes
            for number, member in enumerate(members):
                path = folder / f"{number:05d}"
                with opened.open(member) as content, path.open("xb") as file:
                    while piece := content.read(min(COPY_BYTES, left + 1)):
                        left -= len(piece)
                        if left < 0:
                            raise InvalidRequest(f"The archive unpacks to more than the limit of {max_bytes} bytes.")
                        file.write(piece)
                files.append((member.filename.split("/")[-1], path))
            return files
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InvalidRequest(f"The upload is no zip file that can be opened ({error}). Send a plain .zip.") from error


class _BoundedArchive:
    """What ``ZipFile`` reads ``archive`` through.

    It reads the list of all entries in one piece, as long as the archive says, and makes an object of each that is
    many times larger: a list that is too long is refused before that, wherever the archive (zip64 or not) notes it.
    """

    def __init__(self, archive: BinaryIO) -> None:
        self._archive = archive
        self.seek = archive.seek
        self.tell = archive.tell
        self.seekable = archive.seekable

    def read(self, n_bytes: int = -1) -> bytes:
        if n_bytes > MAX_DIRECTORY_BYTES:
            raise InvalidRequest(
                f"The archive's list of files takes {n_bytes} bytes, over the limit of {MAX_DIRECTORY_BYTES}. "
                f"Send one series, of {MAX_FILES} files at most."
            )
        content = self._archive.read(n_bytes)
        # Of a file there are at most COPY_BYTES, and a list that is as short has no more than 22,795 entries.
        if len(content) > COPY_BYTES and (n_entries := content.count(ENTRY_SIGNATURE)) > MAX_ENTRIES:
            raise InvalidRequest(
                f"The archive lists {n_entries} files and folders, over the limit of {MAX_ENTRIES}. "
                f"Send one series, of {MAX_FILES} files at most."
            )
        return content


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    parts = member.filename.split("/")
    return not member.is_dir() and "__MACOSX" not in parts and not parts[-1].startswith(".")
