"""How unsure the served network is about each unlabelled image: computed when nobody clicks, kept for each network."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import DeepGrow3DError
from deepgrow3d_app.model.disagreement import body_seeds, disagreement
from deepgrow3d_app.model.predictor import Prediction
from deepgrow3d_app.serving.file_version import file_version
from deepgrow3d_app.serving.served_model import ServedModel
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.geometry import Index
from deepgrow3d_app.volume.volume import Volume

logger = logging.getLogger(__name__)

PAUSE_S = 0.2
KEPT_FILES = 5

FindImage = Callable[[str], Path]
FindSeeds = Callable[[str], Sequence[Index]]


class Doubts:
    """Scores of images by the network's own disagreement; thread-safe.

    Args:
        folder: where they are kept, a file for each network; ``None`` keeps them in memory.
        model: the served network.
        volumes: decoded images.
        find: tells the file of an image.
        seeds: tells voxels of an image that lie in structures, where an earlier label knows some.
        is_idle: whether nobody waits for a click; scoring pauses meanwhile.
    """

    def __init__(
        self,
        folder: Path | None,
        model: ServedModel,
        volumes: VolumeCache,
        find: FindImage,
        seeds: FindSeeds,
        is_idle: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder = folder
        self._model = model
        self._volumes = volumes
        self._find = find
        self._seeds = seeds
        self.is_idle = is_idle
        self._lock = threading.Lock()
        self._digest = ""
        self._known: dict[str, tuple[list[int], float | None]] = {}
        self._wanted: list[str] = []
        self._worker: threading.Thread | None = None

    def scores(self, images: Sequence[str]) -> dict[str, float]:
        """What is known of ``images`` with the network that is served now; the others are scored in the background."""
        with self._lock:
            self._take_up(self._model.digest())
            known: dict[str, float] = {}
            self._wanted = []
            for image in images:
                version, score = self._known.get(image, ([], None))
                if image in self._known and version == self._version(image):
                    if score is not None:
                        known[image] = score
                else:
                    self._wanted.append(image)
            if self._wanted and (self._worker is None or not self._worker.is_alive()):
                self._worker = threading.Thread(target=self._work, name="doubts", daemon=True)
                self._worker.start()
            return known

    def wait(self, timeout_s: float) -> None:
        """Return when nothing is left to score, or the time is over."""
        worker = self._worker
        if worker is not None:
            worker.join(timeout_s)

    def _work(self) -> None:
        torch.set_num_threads(1)
        while True:
            with self._lock:
                if not self._wanted:
                    self._worker = None
                    return
                image, digest = self._wanted.pop(0), self._digest
            version = self._version(image)
            score = self._score(image)
            with self._lock:
                if digest == self._digest:
                    self._known[image] = (version, score)
                    self._keep()

    def _score(self, image: str) -> float | None:
        """``None`` for an image that cannot be scored: it is not tried again."""
        try:
            path = self._find(image)
            volume = self._volumes.get(path)
            predictors = self._model.loaded.predictors

            def predict(volume: Volume, clicks: Sequence[Click]) -> Prediction:
                while not self.is_idle():
                    time.sleep(PAUSE_S)
                return predictors.predict(volume, clicks)

            return disagreement(predict, volume, body_seeds(volume, self._seeds(image)))
        except (DeepGrow3DError, OSError) as error:
            logger.warning("'%s' cannot be scored: %s", image, error)
            return None

    def _version(self, image: str) -> list[int]:
        try:
            return list(file_version(self._find(image)))
        except DeepGrow3DError:
            return []

    def _take_up(self, digest: str) -> None:
        """The scores of the network with ``digest``, as far as they are kept."""
        if digest == self._digest:
            return
        self._digest, self._known = digest, {}
        file = self._file()
        if file is not None and file.is_file():
            try:
                content = json.loads(file.read_bytes())
                self._known = {image: (list(version), score) for image, (version, score) in content.items()}
            except (OSError, ValueError, TypeError):
                logger.warning("'%s' is damaged: the images are scored again", file.name)

    def _keep(self) -> None:
        file = self._file()
        if file is None:
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, io.BytesIO(json.dumps(self._known).encode()))
            for old in sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-KEPT_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("Scores of images cannot be kept: %s", error)

    def _file(self) -> Path | None:
        return None if self._folder is None else self._folder / f"{self._digest[:32]}.json"
