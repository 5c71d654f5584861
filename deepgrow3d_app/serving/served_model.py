"""The network that answers clicks, renewed when its checkpoint file is."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import CheckpointError, EngineError, OutOfMemory
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine_choice import EngineChoice
from deepgrow3d_app.model.predictor_pool import PredictorPool
from deepgrow3d_app.serving.compute_threads import aside
from deepgrow3d_app.serving.file_version import FileVersion, file_version
from deepgrow3d_app.volume.volume import Volume

logger = logging.getLogger(__name__)


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
    """The checkpoint at one path, as what answers. Training publishes by replacing the file.

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

    def _load(self) -> PredictorPool:
        return load_predictors(self.path, self._choice)

    def _reload(self, version: FileVersion) -> None:
        try:
            self._loaded = LoadedModel(self._load(), version)
        except (CheckpointError, EngineError, OutOfMemory) as error:
            logger.error("The model loaded before goes on serving: %s", error)  # noqa: TRY400 - the message says it all
        else:
            logger.info("Serving the new checkpoint '%s'", self.path.name)
