"""The network that answers clicks, renewed when its checkpoint file is."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What answers, and the version of the checkpoint file it was made from."""

    predictors: PredictorPool
    version: FileVersion


def load_predictors(path: Path, choice: EngineChoice) -> PredictorPool:
    """What answers with the checkpoint at ``path``, whoever made that file; it has answered a click already.

    Args:
        path: the checkpoint.
        choice: what is to compute.

    Raises:
        CheckpointError: there is none, it is damaged, or no network can be built from it that answers.
        EngineError: what was chosen cannot be had.
    """
    air = Volume(np.full((8, 8, 8), -1000, np.int16), np.eye(4), name="trial")
    try:
        predictors = PredictorPool.of(Checkpoint.load(path), choice)
        predictors.predict(air, [Click((4, 4, 4))])
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RuntimeError, MemoryError) as error:
        fault = str(error).partition("\n")[0].rstrip(".")
        raise CheckpointError(f"'{path.name}' holds no network that answers a click ({fault}).") from error
    return predictors


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
        version = file_version(path)
        self._loaded = LoadedModel(aside(self._load), version)
        self._looked_at = version
        self._digest: tuple[FileVersion, str] = ((), "")

    @property
    def loaded(self) -> LoadedModel:
        """The model in memory, without a look at the file."""
        return self._loaded

    def current(self) -> LoadedModel:
        """The model of the file as it is now.

        Where the new file is missing or damaged, the model loaded before goes on serving; the log
        says so once for each such file.
        """
        version = file_version(self.path)
        if version != self._looked_at:
            with self._lock:
                if version != self._looked_at:
                    self._reload(version)
                    self._looked_at = version
        return self._loaded

    def digest(self) -> str:
        """The sha256 of the file that the model in memory was made from; "" where it was gone before anybody asked."""
        version = self._loaded.version
        if self._digest[0] != version:
            with contextlib.suppress(OSError):
                self._digest = (version, sha256_of(self.path))
        return self._digest[1] if self._digest[0] == version else ""

    @property
    def versions(self) -> Versions:
        """What was served so far."""
        return Versions(self.path)

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
        predictors = None
        if weights is not None:
            predictors = aside(lambda: load_predictors(weights, self._choice))
            predictors.settle(SETTLE_S)
        with self._lock:
            version = put()
            if predictors is not None:
                self._looked_at = file_version(self.path)
                self._loaded = LoadedModel(predictors, self._looked_at)
        self.current()
        return version

    def _load(self) -> PredictorPool:
        return load_predictors(self.path, self._choice)

    def _reload(self, version: FileVersion) -> None:
        try:
            self._loaded = LoadedModel(self._load(), version)
        except (CheckpointError, EngineError, OutOfMemory) as error:
            logger.error("The model loaded before goes on serving: %s", error)  # noqa: TRY400 - the message says it all
        else:
            logger.info("Serving the new checkpoint '%s'", self.path.name)
