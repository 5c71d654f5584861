"""The networks that were served, newest last: published, rolled back to, and never half-written.

They lie beside the served checkpoint, as ``versions/NAME-0007.safetensors`` with a record ``.json`` each. The weights
are written first and the record last: a version is there when its record is. The served checkpoint is always a copy
of one of them, and is replaced by a rename; where a process is killed in between, either the old network is served or
the new one.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from deepgrow3d_app.errors import CheckpointError, NotFound, Superseded
from deepgrow3d_app.retraining.gate import Decision
from deepgrow3d_app.retraining.once_log import OnceLog
from deepgrow3d_app.volume.atomic_file import replace_file

logger = logging.getLogger(__name__)

KEPT_VERSIONS = 5
VERSIONS_FOLDER = "versions"
REMAINS_S = 600
"""How old a half-written file is when whoever wrote it is certainly gone."""


class VersionRecord(BaseModel):
    """What is known of a version.

    Attributes:
        number: from 1; never given twice.
        sha256: of the file.
        published: seconds since 1970.
        made_by: ``training``, ``upload``, or ``found`` for a file that somebody put there.
        parent: the sha256 of what was served before it.
        job: the training.
        data: names and digests of what it was trained on.
        duration_s: that the training took.
        decision: of the gate.
        client: who asked for it.
        is_rolled_back: whether an earlier one was put back in its place.
    """

    model_config = ConfigDict(frozen=True)

    number: int = 0
    sha256: str = ""
    published: float = 0.0
    made_by: str
    parent: str = ""
    job: str = ""
    data: dict[str, str] = {}
    duration_s: float = 0.0
    decision: Decision | None = None
    client: str = ""
    is_rolled_back: bool = False


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of one served checkpoint; several processes may change them.

    Attributes:
        served: the checkpoint that is served.
    """

    served: Path
    _log: OnceLog = field(default_factory=lambda: OnceLog(logger), init=False, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.served.parent / VERSIONS_FOLDER

    def all(self) -> list[VersionRecord]:
        """What there is, the oldest first. One whose record is damaged is passed over, which the log says once."""
        records = (self._read(number, file) for number, file in sorted(self._files(".json").items()))
        return [version for version in records if version is not None]

    def current(self) -> VersionRecord | None:
        """The one that is served; ``None`` where the served file is none of them."""
        digest = sha256_of(self.served)
        return next((version for version in reversed(self.all()) if version.sha256 == digest), None)

    def file(self, number: int) -> Path:
        """The weights of version ``number``.

        Raises:
            NotFound: there is no such version (any more).
            CheckpointError: its record is damaged, or its file is not what was published.
        """
        known = {version.number: version for version in self.all()}
        if number not in known and number in self._files(".json"):
            raise CheckpointError(
                f"The record of version {number} of '{self.served.stem}' is damaged. Choose another version."
            )
        if number not in known:
            there_are = ", ".join(map(str, known)) or "none"
            raise NotFound(f"There is no version {number} of '{self.served.stem}'. There are {there_are}.")
        file = self._weights(number)
        if sha256_of(file) != known[number].sha256:
            raise CheckpointError(f"Version {number} of '{self.served.stem}' is damaged. Choose another version.")
        return file

    def publish(self, weights: Path, record: VersionRecord, judged_against: str | None = None) -> VersionRecord:
        """Serve ``weights``, which were found good, as a new version. The same weights again are the same version.

        Args:
            weights: the checkpoint.
            record: what is known of it.
            judged_against: the sha256 of the network that they are better than; ``None`` for whatever is served.

        Raises:
            Superseded: another network is served meanwhile, or these weights were, and were rolled back.
            OSError: the disk is full, or the folder cannot be written to; what was served is served.
        """
        with self._locked():
            parent = self._keep_served()
            digest = sha256_of(weights)
            version = next((version for version in self.all() if version.sha256 == digest), None)
            is_unwanted = version is not None and version.is_rolled_back and version.job == record.job
            if judged_against is not None and parent != digest and (parent != judged_against or is_unwanted):
                raise Superseded(
                    "Another network was put in the place of the one that it was trained from, while it was trained. "
                    "Train again, from that one."
                )
            if version is None:
                version = self._add(weights, record.model_copy(update={"sha256": digest, "parent": parent}))
            else:
                version = self._renewed(version, weights)
            self._serve(version.number)
            # What was served before stays: where all between were rolled back, it is the one to go back to.
            self._remove_oldest({digest, parent, version.parent})
            return version

    def roll_back(self, number: int | None = None) -> VersionRecord:
        """Serve an earlier version again.

        Args:
            number: which; ``None`` for the parent of the one that is served, or else the latest before it, or the
                latest of all where the served file is gone; never for one that was rolled back.

        Raises:
            NotFound: there is no such version.
            CheckpointError: it is damaged.
        """
        self.check_exists()
        with self._locked():
            self._keep_served()
            versions = self.all()
            if number is None:
                number = self._earlier(versions).number
            self.file(number)
            replaced, chosen = self.current(), next(version for version in versions if version.number == number)
            if replaced is not None and replaced.number > number:
                self._record(replaced.model_copy(update={"is_rolled_back": True}))
            if chosen.is_rolled_back:
                self._record(chosen.model_copy(update={"is_rolled_back": False}))
            self._serve(number)
            return chosen

    def _earlier(self, versions: Sequence[VersionRecord]) -> VersionRecord:
        """What :meth:`roll_back` chooses of all ``versions``."""
        served = self.current()
        before = [version for version in versions if served is None or version.number < served.number]
        parents = [version for version in versions if served is not None and version.sha256 == served.parent]
        wanted = [version for version in (*before, *parents) if not version.is_rolled_back]
        if not wanted:
            others = " but for those that were rolled back. Choose one of them by its number" if before else ""
            raise NotFound(f"There is no version of '{self.served.stem}' before the one that is served{others}.")
        return wanted[-1]

    def check_exists(self) -> None:
        """Raise ``NotFound`` where there is neither a served file nor a version of it."""
        if not self.served.is_file() and not self.all():
            raise NotFound(f"There is no checkpoint '{self.served}', and no version of it. Name another one.")

    def _keep_served(self) -> str:
        """Make a version of what is served, where it is none, so that it can be gone back to; returns its digest."""
        if not self.served.is_file():
            return ""
        digest = sha256_of(self.served)
        if not any(version.sha256 == digest for version in self.all()):
            self._add(self.served, VersionRecord(made_by="found", sha256=digest))
        return digest

    def _add(self, weights: Path, record: VersionRecord) -> VersionRecord:
        # By their names: a damaged version, too, keeps its number and its files.
        number = 1 + max((*self._files(".json"), *self._files(".safetensors")), default=0)
        record = record.model_copy(update={"number": number, "published": time.time()})
        with weights.open("rb") as content:
            replace_file(self._weights(number), content)
        self._record(record)
        return record

    def _renewed(self, version: VersionRecord, weights: Path) -> VersionRecord:
        """A version that is published again: whole on disk, and no longer rolled back."""
        if sha256_of(self._weights(version.number)) != version.sha256:
            with weights.open("rb") as content:
                replace_file(self._weights(version.number), content)
        if version.is_rolled_back:
            version = version.model_copy(update={"is_rolled_back": False})
            self._record(version)
        return version

    def _record(self, version: VersionRecord) -> None:
        content = io.BytesIO(version.model_dump_json(indent=1).encode())
        replace_file(self._weights(version.number).with_suffix(".json"), content)

    def _serve(self, number: int) -> None:
        with self._weights(number).open("rb") as content:
            replace_file(self.served, content)

    def _remove_oldest(self, kept: Collection[str]) -> None:
        """All but the newest, and those whose digests are ``kept``."""
        for version in self.all()[:-KEPT_VERSIONS]:
            if version.sha256 not in kept:
                self._weights(version.number).with_suffix(".json").unlink(missing_ok=True)
                self._weights(version.number).unlink(missing_ok=True)

    def _weights(self, number: int) -> Path:
        return self.folder / f"{self.served.stem}-{number:04d}.safetensors"

    def _files(self, extension: str) -> dict[int, Path]:
        """The files of all versions, by number. Whatever else somebody put beside them is none of ours."""
        if not self.folder.is_dir():
            return {}
        pattern = re.compile(re.escape(self.served.stem) + r"-([0-9]{4,})" + re.escape(extension))
        named = ((pattern.fullmatch(file.name), file) for file in self.folder.iterdir())
        return {int(match[1]): file for match, file in named if match}

    def _read(self, number: int, file: Path) -> VersionRecord | None:
        try:
            version = VersionRecord.model_validate_json(file.read_bytes())
        except FileNotFoundError:  # another process removed it just now: it is one of the oldest
            return None
        except (OSError, ValueError):
            version = None
        if version is None or version.number != number:
            self._log.warn(f"Version {number} is passed over: '{file}' is damaged. Restore it.")
            return None
        return version

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            self._remove_remains()
            yield

    def _remove_remains(self) -> None:
        """Of processes that were killed: nobody else writes here while the lock is held."""
        for partial in self.folder.glob(".*.part"):
            partial.unlink(missing_ok=True)
        for partial in self.served.parent.glob(".*.part"):  # where others may be at work
            if time.time() - partial.stat().st_mtime > REMAINS_S:
                partial.unlink(missing_ok=True)
        recorded = self._files(".json")
        for number, weights in self._files(".safetensors").items():
            if number not in recorded:
                weights.unlink()


def sha256_of(file: Path) -> str:
    """The digest of a file's content; "" where there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
