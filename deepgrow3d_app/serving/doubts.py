"""How unsure the served network is about each unlabelled image: computed when nobody clicks, kept for each network."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from monailabel.interfaces.datastore import Datastore

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import DeepGrow3DError
from deepgrow3d_app.model.disagreement import body_seeds, disagreement
from deepgrow3d_app.model.predictor import Prediction
from deepgrow3d_app.serving.file_version import FileVersion, file_version
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.served_model import ServedModel
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.geometry import Index
from deepgrow3d_app.volume.volume import Volume

logger = logging.getLogger(__name__)

PAUSE_S = 0.2
KEPT_FILES = 5

FindSeeds = Callable[[str], Sequence[Index]]


@dataclass(frozen=True, slots=True)
class Sighting:
    """An image as it is now, found out without fetching it.

    Attributes:
        version: another one whenever the image is; () where there is none.
        path: of a file, or of a folder with one whole series; ``None`` where it is not on this machine.
    """

    version: FileVersion
    path: Path | None


def sighting_of(image: str, images: Datastore) -> Sighting:
    """``image`` as ``images`` has it.

    A series on a DICOMweb server is told by what the server lists: its UID, which is the image's id, and how many
    instances it has. To fetch all of an archive, to see which of it is new, would take hours and more than the disk.
    """
    path = Path(images.get_image_uri(image))
    if path.is_file():
        return Sighting(file_version(path), path)
    n_instances = images.get_image_info(image).get("instances")
    if not isinstance(n_instances, int):
        return Sighting((), None)
    try:
        count = sum(entry.is_file() for entry in os.scandir(path))
    except OSError:  # not fetched, or removed to make room
        count = 0
    is_whole = count > 0 and n_instances in (0, count)  # a server that does not count says 0
    return Sighting((n_instances,), path if is_whole else None)


class Doubts:
    """Scores of images by the network's own disagreement; thread-safe.

    Args:
        folder: where they are kept, a file for each network; ``None`` keeps them in memory.
        model: the served network.
        volumes: decoded images.
        images: tells the studies.
        seeds: tells voxels of an image that lie in structures, where an earlier label knows some.
        is_idle: whether nobody waits for a click; scoring pauses meanwhile.
    """

    def __init__(
        self,
        folder: Path | None,
        model: ServedModel,
        volumes: VolumeCache,
        images: Callable[[], Datastore],
        seeds: FindSeeds,
        is_idle: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder = folder
        self._model = model
        self._volumes = volumes
        self._images = images
        self._seeds = seeds
        self.is_idle = is_idle
        self._lock = threading.Lock()
        self._digest = ""
        self._known: dict[str, tuple[FileVersion, float | None]] = {}
        self._wanted: list[str] = []
        self._worker: threading.Thread | None = None

    def scores(self, images: Sequence[str]) -> dict[str, float]:
        """What is known of ``images`` with the network that is served now.

        The others are scored in the background, as far as they are on this machine: none is fetched for its score.
        """
        studies = self._images()
        seen = {image: sighting_of(image, studies) for image in images}
        digest = self._model.digest()
        with self._lock:
            self._take_up(digest)
            known: dict[str, float] = {}
            self._wanted = []
            for image, sighting in seen.items():
                version, score = self._known.get(image, ((), None))
                if version and version == sighting.version:
                    if score is not None:
                        known[image] = score
                elif sighting.path is not None:
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
            sighting = sighting_of(image, self._images())
            if sighting.path is None:
                continue
            score = self._score(image, sighting.path)
            if sighting_of(image, self._images()) != sighting:
                continue  # it was replaced or removed meanwhile: the score is another image's, or of a part of it
            with self._lock:
                if digest == self._digest:
                    self._known[image] = (sighting.version, score)
                    self._keep()

    def _score(self, image: str, path: Path) -> float | None:
        """``None`` for an image that cannot be scored: it is not tried again."""
        try:
            volume = self._volumes.get(path)
            predictors = self._model.loaded.predictors

            def predict(volume: Volume, clicks: Sequence[Click]) -> Prediction:
                while not self.is_idle():
                    time.sleep(PAUSE_S)
                return predictors.predict(volume, clicks)

            return disagreement(predict, volume, body_seeds(volume, self._seeds(image)))
        except (DeepGrow3DError, OSError) as error:
            logger.warning("%s cannot be scored: %s", shown(image), error)
            return None

    def _take_up(self, digest: str) -> None:
        """The scores of the network with ``digest``, as far as they are kept."""
        if digest == self._digest:
            return
        self._digest, self._known = digest, {}
        file = self._file()
        if file is not None and file.is_file():
            try:
                content = json.loads(file.read_bytes())
                self._known = {image: (tuple(version), score) for image, (version, score) in content.items()}
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
