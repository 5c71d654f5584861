"""One pre-annotation at a time: image after image, structure after structure, when nobody waits for a click."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from monailabel.interfaces.exception import MONAILabelException
from pydantic import BaseModel, ValidationError

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import Busy, DeepGrow3DError, InvalidRequest, NotFound, Superseded
from deepgrow3d_app.serving.attendance import Attendance
from deepgrow3d_app.serving.batch.order import BatchOrder
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.incoming import Incoming
from deepgrow3d_app.serving.seeds import structure_seeds
from deepgrow3d_app.serving.served_model import ServedModel
from deepgrow3d_app.serving.studies_labels import BASED_ON
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import write_mask

logger = logging.getLogger(__name__)

PAUSE_S = 0.2
MAX_STRUCTURES = 255
CLIENT = "batch"

ImageStatus = Literal["waiting", "done", "failed", "skipped"]


class ImageOutcome(BaseModel):
    """What became of an image.

    Attributes:
        status: ``skipped`` where it has such a label already.
        structures: drawn, in the order of their values.
        error: why not.
        seconds: that it took.
    """

    status: ImageStatus = "waiting"
    structures: list[str] = []
    error: str = ""
    seconds: float = 0.0


class BatchState(BaseModel):
    """Where a pre-annotation stands; ``error`` is why it was interrupted, as far as this server knows."""

    status: Literal["RUNNING", "DONE", "STOPPED", "INTERRUPTED"]
    order: BatchOrder
    started: float
    ended: float | None = None
    images: dict[str, ImageOutcome]
    error: str = ""

    @property
    def done(self) -> int:
        """How many images are no longer waiting."""
        return sum(outcome.status != "waiting" for outcome in self.images.values())


class BatchRuns:
    """The pre-annotations of these studies; thread-safe.

    Args:
        folder: where the state is kept; ``None`` where nothing may be written.
        model: what draws.
        volumes: decoded images.
        images: the studies.
        incoming: where a label is written before it is saved.
        is_idle: whether nobody waits for a click; drawing pauses meanwhile.
    """

    def __init__(
        self,
        folder: Path | None,
        model: ServedModel,
        volumes: VolumeCache,
        images: Callable[[], StudiesDatastore],
        incoming: Incoming,
        is_idle: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder = folder
        self._model = model
        self._volumes = volumes
        self._images = images
        self._incoming = incoming
        self.is_idle = is_idle
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault = ""

    def start(self, order: BatchOrder) -> BatchState:
        """Begin.

        Raises:
            InvalidRequest: nothing may be written.
            NotFound: no image to work on.
            Busy: one is running.
        """
        with self._lock:
            self._refuse_second()
            chosen = self._chosen(order)
            state = BatchState(
                status="RUNNING", order=order, started=time.time(), images={image: ImageOutcome() for image in chosen}
            )
            self._begin(state)
        return state

    def resume(self) -> BatchState:
        """Go on with what is waiting, and try again what failed.

        Raises:
            NotFound: there was none.
            Busy: it is running.
        """
        with self._lock:
            self._refuse_second()
            state = self.latest()
            if state is None:
                raise NotFound("There is no pre-annotation to go on with. Start one.")
            images = {
                image: outcome if outcome.status in ("done", "skipped") else ImageOutcome()
                for image, outcome in state.images.items()
            }
            state = state.model_copy(update={"status": "RUNNING", "ended": None, "images": images})
            self._begin(state)
        return state

    def stop(self) -> BatchState:
        """Stop after the structure that is being drawn.

        Raises:
            NotFound: none runs here.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            raise NotFound("No pre-annotation is running.")
        self._stopped.set()
        thread.join()
        state = self.latest()
        assert state is not None  # noqa: S101 - its thread wrote it
        return state

    def latest(self) -> BatchState | None:
        """The last one that was started, or ``None``."""
        if self._folder is None:
            return None
        try:
            state = BatchState.model_validate_json((self._folder / "state.json").read_bytes())
        except (OSError, ValidationError):
            return None
        if state.status == "RUNNING" and not Attendance(self._folder).is_held():
            state = state.model_copy(update={"status": "INTERRUPTED", "error": self._fault})
        return state

    def close(self) -> None:
        """The server ends: what is done is done, and can be gone on with."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _refuse_second(self) -> None:
        state = self.latest()
        if state is not None and state.status == "RUNNING":
            raise Busy(
                f"A pre-annotation is running: {state.done} of {len(state.images)} images are done. "
                "Wait until it has ended, or stop it (DELETE /batch/infer/).",
                retry_after_s=10,
            )

    def _chosen(self, order: BatchOrder) -> list[str]:
        if self._folder is None:
            raise InvalidRequest("The studies are read-only: no mask could be saved.")
        images = self._images()
        known = sorted(images.list_images())
        if order.prompts or isinstance(order.images, list):
            wanted = sorted(order.prompts) if order.prompts else list(dict.fromkeys(order.images))
            if unknown := [image for image in wanted if image not in known]:
                raise NotFound(
                    f"There is no image '{unknown[0]}' among the studies. GET /datastore/?output=all lists them."
                )
        else:
            wanted = known if order.images == "all" else sorted(images.get_unlabeled_images())
        if order.seeds_from:
            wanted = [image for image in wanted if order.seeds_from in images.get_label_tags_of(image)]
        if not wanted:
            tag = f" that has a label '{order.seeds_from}'" if order.seeds_from else ""
            raise NotFound(f"There is no image to work on{tag}. Choose other images, or prompts.")
        return wanted

    def _begin(self, state: BatchState) -> None:
        assert self._folder is not None  # noqa: S101 - _chosen refused
        self._folder.mkdir(parents=True, exist_ok=True)
        attendance = Attendance(self._folder)
        attendance.begin()
        self._stopped.clear()
        self._fault = ""
        self._write(state)
        self._thread = threading.Thread(target=self._work, args=(state, attendance), name="batch", daemon=True)
        self._thread.start()

    def _work(self, state: BatchState, attendance: Attendance) -> None:
        try:
            for image, outcome in state.images.items():
                if outcome.status != "waiting":
                    continue
                if self._stopped.is_set():
                    break
                found = self._outcome(image, state.order)
                if found is not None:
                    state.images[image] = found
                    self._write(state)
            is_done = state.done == len(state.images)
            self._write(state.model_copy(update={"status": "DONE" if is_done else "STOPPED", "ended": time.time()}))
        except OSError as error:
            self._fault = f"its state cannot be written ({error.strerror})"  # nor can this: it is kept in memory
            logger.error("The pre-annotation stopped: %s", error)  # noqa: TRY400 - the message says it all
        finally:
            attendance.end()

    def _outcome(self, image: str, order: BatchOrder) -> ImageOutcome | None:
        """``None`` where it was stopped."""
        images = self._images()
        started = time.perf_counter()
        try:
            images.look_elsewhere(image, order.label_tag)
            version = images.version_of(image, order.label_tag)  # before the label is looked for: it may be saved now
            if not order.overwrite and order.label_tag in images.get_label_tags_of(image):
                return ImageOutcome(status="skipped", error=f"it has a label '{order.label_tag}'")
            if order.seeds_from:
                clicks = structure_seeds(images, image, order.seeds_from)
            else:
                clicks = {name: prompt.clicks for name, prompt in order.prompts[image].items()}
            drawn = self._draw(image, order.label_tag, clicks, version)
            if drawn is None:
                return None
        except Superseded as error:
            return ImageOutcome(status="skipped", error=f"somebody saved a label meanwhile. {error}")
        except (DeepGrow3DError, MONAILabelException) as error:
            logger.warning("Pre-annotation of '%s': %s", image, error)
            return ImageOutcome(status="failed", error=str(error))
        return ImageOutcome(status="done", structures=drawn, seconds=round(time.perf_counter() - started, 2))

    def _draw(self, image: str, tag: str, clicks: Mapping[str, Sequence[Click]], version: int) -> list[str] | None:
        """Draw and save all structures; a voxel belongs to the first that claims it. ``None`` where it was stopped.

        Raises:
            Superseded: the label is not at ``version`` any more.
        """
        if not 0 < len(clicks) <= MAX_STRUCTURES:
            raise InvalidRequest(
                f"There are {len(clicks)} structures to draw in '{image}'. Name 1 to {MAX_STRUCTURES}."
            )
        images = self._images()
        volume = self._volumes.get(images.image_file(image))
        labels = np.zeros(volume.shape, np.uint8, order="F")
        for value, asked in enumerate(clicks.values(), start=1):
            while not self.is_idle() and not self._stopped.is_set():
                time.sleep(PAUSE_S)
            if self._stopped.is_set():
                return None
            mask = self._model.current().predictors.predict(volume, asked).boxed
            window = labels[mask.box]
            window[mask.part & (window == 0)] = value
        info = {
            "label_info": [{"name": name, "idx": value} for value, name in enumerate(clicks, start=1)],
            "client_id": CLIENT,
            BASED_ON: version,
        }
        with self._incoming.new_folder() as folder:
            file = folder / "label.nii.gz"
            write_mask(labels, volume.affine, file)
            images.save_label(image, str(file), tag, info)
        return list(clicks)

    def _write(self, state: BatchState) -> None:
        assert self._folder is not None  # noqa: S101 - _chosen refused
        replace_file(self._folder / "state.json", io.BytesIO(state.model_dump_json(indent=1).encode()))
