"""The MONAI Label app: what is served, put together from the studies, the checkpoint and the settings."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.config import settings as monailabel_settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First

from deepgrow3d_app import PRODUCT, __version__
from deepgrow3d_app.errors import InvalidRequest, NotFound
from deepgrow3d_app.model.engine_choice import EngineChoice
from deepgrow3d_app.serving.batch.runs import BatchRuns
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.click_memory import ClickMemory
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress, is_address
from deepgrow3d_app.serving.dicomweb.pacs import Pacs
from deepgrow3d_app.serving.dicomweb.studies import DicomWebStudies
from deepgrow3d_app.serving.doubts import Doubts
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.incoming import Incoming, Leftovers
from deepgrow3d_app.serving.infer_task import DeepGrowInferTask
from deepgrow3d_app.serving.labelled_cases import labelled_cases
from deepgrow3d_app.serving.seeds import seeds_of
from deepgrow3d_app.serving.served_model import ServedModel
from deepgrow3d_app.serving.sessions import Sessions
from deepgrow3d_app.serving.settings import ServingSettings
from deepgrow3d_app.serving.strategies import UNCERTAIN, RandomStrategy, UncertainStrategy
from deepgrow3d_app.serving.training.train_task import DeepGrowTrainTask
from deepgrow3d_app.serving.training.trainings import TrainingPlaces, Trainings
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.decoded_folder import DecodedFolder

logger = logging.getLogger(__name__)

MODEL_NAME = "deepgrow3d"
CHECKPOINT_FILE = "deepgrow3d.safetensors"


class DeepGrow3DApp(MONAILabelApp):  # type: ignore[misc]
    """DeepGrow 3D for MONAI Label: one model, ``deepgrow3d``, on a folder of studies.

    Args:
        app_dir: the app's folder; its ``model`` folder holds the checkpoint.
        studies: the folder of images and labels, or the address of a DICOMweb server.
        conf: what was given with ``--conf``; names of :class:`ServingSettings` count.

    Raises:
        InvalidRequest: settings or studies that cannot be used.
        CheckpointError: no checkpoint, or a damaged one.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str] | None) -> None:
        conf = dict(conf or {})
        self._at_end = contextlib.ExitStack()
        self.serving = ServingSettings.load(conf)
        self.dicomweb = DicomWebAddress.of(studies, monailabel_settings) if is_address(studies) else None
        if self.dicomweb is not None and monailabel_settings.MONAI_LABEL_DATASTORE_READ_ONLY:
            raise InvalidRequest(
                f"MONAI_LABEL_DATASTORE_READ_ONLY is for studies in a folder: labels would be stored on "
                f"{self.dicomweb.url} all the same. Leave it out, and give tokens of the role 'user' "
                "(`deepgrow3d token add NAME --role user`), who may click and not save."
            )
        default = Path(studies) / ".deepgrow3d" if self.dicomweb is None else self.dicomweb.folder()
        self.kept = self.serving.cache_folder or default
        is_read_only = self.is_read_only = (
            monailabel_settings.MONAI_LABEL_DATASTORE_READ_ONLY and self.serving.cache_folder is None
        )
        self.incoming = Incoming(None if is_read_only else self.kept / "incoming")
        written = [self.kept] if self.dicomweb is not None else [self.kept, Path(studies)]
        self._leftovers = Leftovers([] if is_read_only else written)
        self.decoded = (
            None
            if is_read_only or self.serving.volume_disk_bytes == 0
            else DecodedFolder(self.kept / "volumes", self.serving.volume_disk_bytes)
        )
        self.volumes = VolumeCache(self.serving.volume_cache_bytes, folder=self.decoded)
        self.log = ClickLog(None if is_read_only else self.kept / "clicks")
        self.model = ServedModel(
            self.serving.checkpoint or Path(app_dir) / "model" / CHECKPOINT_FILE,
            EngineChoice(
                self.serving.engine, None if is_read_only else self.kept / "engines", self.serving.torch_compile
            ),
        )
        places = TrainingPlaces(
            None if is_read_only else self.kept / "training",
            self.serving.replay_folders,
            self.serving.reference_case,
            self.serving.reference_structures,
        )
        self.batches = BatchRuns(
            None if is_read_only else self.kept / "batch",
            self.model,
            self.volumes,
            lambda: self.images(),
            self.incoming,
        )
        self.trainings = Trainings(places, self.model, lambda: labelled_cases(self.images()))
        super().__init__(
            app_dir=app_dir,
            studies=studies if self.dicomweb is None else self.dicomweb.url,
            conf=conf,
            name=PRODUCT,
            description="A few clicks in a CT or MR become a 3-D mask. Not for diagnostic use.",
            version=__version__,
        )

    def init_datastore(self) -> StudiesDatastore:
        """The studies folder, or the DICOMweb server."""
        if self.dicomweb is not None:
            return DicomWebStudies(
                self.kept / self.dicomweb.folder_name,
                Pacs(self.dicomweb),
                self.volumes,
                self.log,
                max_bytes=self.serving.dicom_disk_bytes,
                refresh_s=self.serving.dicomweb_refresh_s,
                removes_superseded=self.serving.dicomweb_removes_superseded,
                model_digest=self.model.digest,
            )
        return StudiesDatastore(
            Path(self.studies),
            self.volumes,
            self.log,
            auto_reload=monailabel_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=monailabel_settings.MONAI_LABEL_DATASTORE_READ_ONLY,
            model_digest=self.model.digest,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """The one model."""
        return {
            MODEL_NAME: DeepGrowInferTask(
                self.model,
                self.volumes,
                ClickMemory(self.serving.click_memory_bytes),
                self.log,
            ),
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """The one model learns from the labels that are saved."""
        return {MODEL_NAME: DeepGrowTrainTask(self.trainings)}

    def init_strategies(self) -> dict[str, Strategy]:
        """How the next image is chosen."""
        self.doubts = Doubts(
            None if self.trainings.is_read_only else self.kept / "doubts",
            self.model,
            self.volumes,
            lambda: self.images(),
            lambda image: seeds_of(self.images(), image),
        )
        by_chance = RandomStrategy(np.random.default_rng())
        return {"random": by_chance, "first": First(), UNCERTAIN: UncertainStrategy(self.doubts, by_chance)}

    def init_batch_infer(self) -> None:
        """None of MONAI Label's kind: ``/batch/infer`` is answered by ``serving.batch``."""

    def _load_sessions(self, load: bool = False) -> Sessions:
        folder = self.serving.session_folder or self.kept / "sessions"
        if self.is_read_only and self.serving.session_folder is None:
            folder = Path(self._at_end.enter_context(tempfile.TemporaryDirectory(prefix="deepgrow3d-sessions-")))
        return Sessions(
            folder,
            self.volumes,
            self.log,
            expiry_s=self.serving.session_expiry_s,
            max_bytes=self.serving.session_bytes,
            max_image_bytes=self.serving.upload_bytes,
        )

    def infer_task(self, model: str) -> DeepGrowInferTask:
        """The task of the model called ``model``.

        Raises:
            NotFound: there is no such model.
        """
        task = self._infers.get(model)
        if not isinstance(task, DeepGrowInferTask):
            raise NotFound(f"There is no model {shown(model)}. The model here is '{MODEL_NAME}'.")
        return task

    def strategy(self, name: str) -> Strategy:
        """The strategy called ``name``.

        Raises:
            NotFound: there is no such strategy.
        """
        strategy = self._strategies.get(name)
        if strategy is None:
            raise NotFound(f"There is no strategy {shown(name)}. Choose one of {', '.join(sorted(self._strategies))}.")
        return strategy

    def images(self) -> StudiesDatastore:
        """The studies folder, by its own type."""
        datastore: StudiesDatastore = self._datastore
        return datastore

    def dicomweb_studies(self) -> DicomWebStudies:
        """The studies on a DICOMweb server, by their own type.

        Raises:
            NotFound: the studies are a folder.
        """
        if not isinstance(self._datastore, DicomWebStudies):
            raise NotFound(f"The studies are the folder '{self.studies}', and on no DICOMweb server.")
        return self._datastore

    def viewer_sessions(self) -> Sessions:
        """The sessions, by their own type."""
        sessions: Sessions = self._sessions
        return sessions

    def clean_up(self) -> None:
        """Remove what nobody will ask for again: expired sessions, what a kill left, volumes whose image is gone."""
        self.viewer_sessions().remove_expired()
        self.incoming.remove_abandoned()
        self._leftovers.remove_abandoned()
        if self.decoded is not None:
            self.decoded.remove_orphans()

    def close(self) -> None:
        """The server ends: what it must not leave behind is removed."""
        self._at_end.close()

    def on_init_complete(self) -> None:
        """Nothing is left to do: expired sessions are removed by the server, scores are not computed."""

    def model_info(self, model: str) -> dict[str, Any] | None:
        """Checksum and time of the checkpoint."""
        self.infer_task(model)
        info: dict[str, Any] | None = super().model_info(model)
        return info
