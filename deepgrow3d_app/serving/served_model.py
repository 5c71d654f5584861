"""The network that answers clicks, renewed when its checkpoint file is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import CheckpointError, EngineError, OutOfMemory
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine_choice import EngineChoice
from deepgrow3d_app.model.predictor_pool import PredictorPool
from deepgrow3d_app.retraining.versions import VersionRecord, Versions, sha256_of
from deepgrow3d_app.serving.compute_threads import aside
from deepgrow3d_app.serving.file_version import FileVersion, file_version
from deepgrow3d_app.volume.volume import Volume

logger = logging.getLogger(__name__)

SETTLE_S = 120
"""How long a new network's fastest engine is waited for before it is served; the old one answers meanwhile."""

READ_TRIES = 3
"""How often a file is read that is replaced each time."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What answers.

    Attributes:
        predictors: the network.
        version: of the checkpoint file that it was made from.
        digest: the sha256 of that file.
    """

    predictors: PredictorPool
    version: FileVersion
    digest: str


def load_model(path: Path, choice: EngineChoice) -> LoadedModel:
    """What answers with the checkpoint at ``path``, whoever made that file; it has answered a click already.

    Args:
        path: the checkpoint.
        choice: what is to compute.

    Raises:
        CheckpointError: there is none, it is damaged or replaced all the while, or no network that answers can be built
            from it.
        EngineError: what was chosen cannot be had.
    """
    air = Volume(np.full((8, 8, 8), -1000, np.int16), np.eye(4), name="trial")
    try:
        checkpoint, version, digest = _read(path)
        predictors = PredictorPool.of(checkpoint, choice)
        predictors.predict(air, [Click((4, 4, 4))])
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RuntimeError, MemoryError) as error:
        fault = str(error).partition("\n")[0].rstrip(".")
        raise CheckpointError(f"'{path.name}' holds no network that answers a click ({fault}).") from error
    return LoadedModel(predictors, version, digest)


def _read(path: Path) -> tuple[Checkpoint, FileVersion, str]:
    """A checkpoint, and the version and the sha256 of the very file that it was read from."""
    for _ in range(READ_TRIES):
        version = file_version(path)
        checkpoint = Checkpoint.load(path)
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise CheckpointError(f"'{path.name}' cannot be read: {error.strerror}.") from error
        if file_version(path) == version:  # else the digest may be another file's
            return checkpoint, version, digest
    raise CheckpointError(f"'{path.name}' was replaced {READ_TRIES} times while it was read. Replace it once.")


class ServedModel:
    """The checkpoint at one path, as what answers; a file put in its place is served from the next click on.

    Args:
        path: the checkpoint.
        choice: what is to compute.

    Raises:
        CheckpointError: there is none, or it is damaged; an untrained network is never served.
        EngineError: what was chosen cannot be had.
    """

    def __init__(self, path: Path, choice: EngineChoice) -> None:
        self.path = path
        self._choice = choice
        self._lock = threading.Lock()
        self._versions = Versions(path)
        self._loaded = aside(self._load)
        self._looked_at = self._loaded.version

    @property
    def loaded(self) -> LoadedModel:
        """The model in memory, without a look at the file."""
        return self._loaded

    def current(self) -> LoadedModel:
        """The model of the file as it is now.

        Where the new file is missing or damaged, the model loaded before goes on serving; the log
        says so once for each such file.
        """
        if file_version(self.path) != self._looked_at:
            with self._lock:
                version = file_version(self.path)  # as it is now: this thread may have waited for another one's reload
                if version != self._looked_at:
                    self._looked_at = self._reload(version)
        return self._loaded

    def digest(self) -> str:
        """The sha256 of the file that the model in memory was made from, whatever lies in its place by now."""
        return self._loaded.digest

    @property
    def versions(self) -> Versions:
        """What was served so far."""
        return self._versions

    def publish(self, weights: Path, record: VersionRecord, judged_against: str | None = None) -> VersionRecord:
        """Serve the checkpoint ``weights`` from some click on, as a new version; no click waits for it.

        ``judged_against``: see :meth:`Versions.publish`.

        Raises:
            Superseded: another network is served meanwhile.
            CheckpointError: it does not answer clicks.
            EngineError: what was chosen to compute cannot be had.
            OSError: it cannot be put in place; what was served is served.
        """
        return self._serve(weights, lambda: self.versions.publish(weights, record, judged_against))

    def roll_back(self, number: int | None) -> VersionRecord:
        """Serve an earlier version again; see :meth:`Versions.roll_back`."""
        if number is None:
            return self._serve(None, lambda: self.versions.roll_back(None))
        return self._serve(self.versions.file(number), lambda: self.versions.roll_back(number))

    def _serve(self, weights: Path | None, put: Callable[[], VersionRecord]) -> VersionRecord:
        """Load ``weights`` while the old network answers; then put them in place, and swap both between two clicks."""
        model = None
        if weights is not None:
            model = aside(lambda: load_model(weights, self._choice))
            model.predictors.settle(SETTLE_S)
        with self._lock:
            version = put()
            placed = file_version(self.path)
            if model is not None and sha256_of(self.path) == model.digest:  # else somebody else's took its place
                self._loaded, self._looked_at = replace(model, version=placed), placed
        self.current()
        return version

    def _load(self) -> LoadedModel:
        return load_model(self.path, self._choice)

    def _reload(self, version: FileVersion) -> FileVersion:
        """Load the file, which is at ``version`` or a later one; returns the version that was looked at."""
        try:
            self._loaded = self._load()
        except (CheckpointError, EngineError, OutOfMemory) as error:
            logger.error("The model loaded before goes on serving: %s", error)  # noqa: TRY400 - the message says it all
            return version
        logger.info("Serving the new checkpoint '%s'", self.path.name)
        return self._loaded.version
