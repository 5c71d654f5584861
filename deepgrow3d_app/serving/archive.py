"""Zip archives that clients send, opened without trusting a name or a size in them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.volume.atomic_file import COPY_BYTES

MAX_FILES = 20_000


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
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if _is_wanted(member)]
            if len(members) > MAX_FILES:
                raise InvalidRequest(f"The archive holds {len(members)} files, over the limit of {MAX_FILES}.")
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


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    parts = member.filename.split("/")
    return not member.is_dir() and "__MACOSX" not in parts and not parts[-1].startswith(".")
