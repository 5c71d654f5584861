"""Files that clients send, as they come."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastapi import UploadFile

from deepgrow3d_app.serving.incoming import Incoming
from deepgrow3d_app.volume.atomic_file import COPY_BYTES
from deepgrow3d_app.volume.files import extension_of


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """One file of a request.

    Attributes:
        name: as the client calls it, without folders; "" where it does not say.
        content: open for reading, at its beginning.
    """

    name: str
    content: BinaryIO

    @classmethod
    def of(cls, file: UploadFile) -> Upload:
        """The upload behind FastAPI's ``file``. Clients send bare names or whole paths, of any system."""
        return cls(re.split(r"[/\\]", file.filename or "")[-1], file.file)

    @property
    def extension(self) -> str:
        """Its volume format: one of ``EXTENSIONS``, ".nii.gz" where there is no name, else ""."""
        return extension_of(self.name) if self.name else ".nii.gz"

    @property
    def stem(self) -> str:
        """Its name without the extension of its format."""
        return self.name[: len(self.name) - len(self.extension)]

    def write_to(self, path: Path) -> None:
        """Write the content to the new file ``path``."""
        with path.open("xb") as file:
            shutil.copyfileobj(self.content, file, COPY_BYTES)

    @contextlib.contextmanager
    def staged(self, incoming: Incoming, name: str) -> Iterator[Path]:
        """The content as a file ``name`` in a folder of ``incoming``, gone after the block: to be decoded there."""
        with incoming.new_folder() as folder:
            path = folder / name
            self.write_to(path)
            yield path
