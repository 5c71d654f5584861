"""Every label that was ever saved: who saved it, when, with which network and which clicks.

A version is written here before it becomes the label, so that the label is always one of the versions, and nothing
that was saved is lost by what is saved after it. The file is written first and the record last: a version is there when
its record is. Kept in the studies' own folder (``.deepgrow3d/label-history/TAG/IMAGE/0003.nii.gz``), not among what may
be computed again.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from deepgrow3d_app.errors import InvalidRequest, NotFound
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.saved_clicks import ClickSets
from deepgrow3d_app.volume.atomic_file import replace_file

LABEL_EXTENSION = ".nii.gz"


SAVED_BY = "saved_by"
"""In a label's info: who had signed in; clients cannot set it."""


class LabelVersion(BaseModel):
    """What is known of one version of a label.

    Attributes:
        number: from 1.
        sha256: of the file.
        saved: seconds since 1970.
        client_id: from which viewer, as that says itself; "" where it does not.
        saved_by: who had signed in; "" where nobody has to.
        model_sha256: the network that was served then.
        clicks: by structure, those that its last mask was computed from; what was painted by hand has none.
        info: what the viewer sent beside it: names of structures, and what reviewers made of it since.
    """

    model_config = ConfigDict(frozen=True)

    number: int = 0
    sha256: str = ""
    saved: float = 0.0
    client_id: str = ""
    saved_by: str = ""
    model_sha256: str = ""
    clicks: dict[str, ClickSets] = {}
    info: dict[str, Any] = {}

    @property
    def by(self) -> str:
        """Who saved it, as well as that is known."""
        return self.saved_by or self.client_id


@dataclass(frozen=True, slots=True)
class LabelHistory:
    """The versions of all labels of the studies; whoever changes them holds the lock of the studies' index.

    Attributes:
        folder: where they lie.
    """

    folder: Path

    def versions(self, image_id: str, tag: str) -> list[LabelVersion]:
        """Of the label ``tag`` of ``image_id``, the oldest first.

        Raises:
            InvalidRequest: a path instead of a name.
        """
        folder = self._of(image_id, tag)
        records = sorted(folder.glob("*.json"), key=_number_of) if folder.is_dir() else []
        return [version for version in map(_read, records) if version is not None]

    def newest(self) -> Iterator[tuple[str, str, LabelVersion]]:
        """(image id, tag, newest version) of every label."""
        for folder in sorted(self.folder.glob("*/*/")):
            versions = self.versions(folder.name, folder.parent.name)
            if versions:
                yield folder.name, folder.parent.name, versions[-1]

    def file(self, image_id: str, tag: str, number: int) -> Path:
        """The label map of version ``number``.

        Raises:
            NotFound: there is no such version.
        """
        known = [version.number for version in self.versions(image_id, tag)]
        if number not in known:
            there_are = ", ".join(map(str, known)) or "none"
            raise NotFound(f"The label {shown(tag)} of {shown(image_id)} has no version {number}. Known: {there_are}.")
        return self._of(image_id, tag) / f"{number:04d}{LABEL_EXTENSION}"

    def add(self, image_id: str, tag: str, content: bytes, version: LabelVersion) -> LabelVersion:
        """Keep ``content`` as the newest version; returns its record.

        Raises:
            OSError: the disk is full; nothing is added then.
        """
        folder = self._of(image_id, tag)
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max(map(_number_of, folder.iterdir()), default=0)
        update = {"number": number, "sha256": hashlib.sha256(content).hexdigest()}
        version = version.model_copy(update=update if version.saved else {**update, "saved": time.time()})
        replace_file(folder / f"{number:04d}{LABEL_EXTENSION}", io.BytesIO(content))
        self._record(image_id, tag, version)
        return version

    def add_found(self, image_id: str, tag: str, content: bytes, info: dict[str, Any], saved: float) -> LabelVersion:
        """Keep a label that is there, where it is none of the versions: another program made it.

        Args:
            image_id, tag: whose label it is.
            content: of its file, .nii.gz.
            info: what is known of it.
            saved: when it was made, in seconds since 1970.

        Returns:
            The version that it is.
        """
        digest = hashlib.sha256(content).hexdigest()
        for version in reversed(self.versions(image_id, tag)):
            if version.sha256 == digest:
                return version
        return self.add(image_id, tag, content, LabelVersion(saved=saved, info=info))

    def remove(self, image_id: str, tag: str, number: int) -> None:
        """Take back version ``number``, which never became the label."""
        for extension in (".json", LABEL_EXTENSION):  # a version is there when its record is
            (self._of(image_id, tag) / f"{number:04d}{extension}").unlink(missing_ok=True)

    def note(self, image_id: str, tag: str, number: int, info: dict[str, Any]) -> None:
        """Keep what is known of version ``number`` now: what a reviewer said of it."""
        for version in self.versions(image_id, tag):
            if version.number == number:
                self._record(image_id, tag, version.model_copy(update={"info": info}))

    def forget(self, image_id: str) -> None:
        """Remove all versions of all labels of an image that is removed."""
        for folder in self.folder.glob("*/"):
            shutil.rmtree(folder / image_id, ignore_errors=True)

    def _record(self, image_id: str, tag: str, version: LabelVersion) -> None:
        content = version.model_dump_json(indent=1).encode()
        replace_file(self._of(image_id, tag) / f"{version.number:04d}.json", io.BytesIO(content))

    def _of(self, image_id: str, tag: str) -> Path:
        for name in (tag, image_id):
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise InvalidRequest(f"{shown(name)} is no name of an image or of a label's tag: it is a path.")
        return self.folder / tag / image_id


def _number_of(file: Path) -> int:
    """Of the version that ``file`` belongs to; 0 where its name is none of ours. From 10000 on it has more digits."""
    stem = file.name.partition(".")[0]
    return int(stem) if stem.isdecimal() else 0


def _read(record: Path) -> LabelVersion | None:
    try:
        return LabelVersion.model_validate_json(record.read_bytes())
    except (OSError, ValidationError):  # removed meanwhile, or damaged by whoever edited it
        return None
