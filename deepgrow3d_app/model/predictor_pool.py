"""All devices of a machine behind one predictor, and what is tried when one has no memory left or is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import torch

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import OutOfMemory
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.engine_choice import EngineChoice, RelayEngine, make_engine
from deepgrow3d_app.model.predictor import Prediction, Predictor
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.boxed_mask import BoxedMask
from deepgrow3d_app.volume.volume import Mask, Volume

logger = logging.getLogger(__name__)

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "ALLOC_FAILED")


def device_works(device: torch.device) -> bool:
    """Whether ``device`` computes: a GPU that has fallen off the bus, or whose context is broken, never does again."""
    if device.type == "cpu":
        return True
    try:
        is_one = bool(torch.ones(1, device=device).item() == 1)
    except RuntimeError as error:
        if _is_out_of_memory(error):
            return True
        logger.warning("%s does not compute: %s", device, error)
        return False
    return is_one


class PredictorPool:
    """Answers as a :class:`Predictor` does, each call on the device that is least busy; safe to share between threads.

    A device that is lost is not asked again; what it should have answered, another one does.

    Args:
        predictors: one for each device, at least one, all of the same specification.
        works: whether a device still computes; asked where a predictor failed for another reason than memory.
        spares: makes each what is tried next when memory runs out or every device is lost, in this order; called once,
            when it is needed.
    """

    def __init__(
        self,
        predictors: Sequence[Predictor],
        spares: Sequence[Callable[[], Predictor]] = (),
        works: Callable[[torch.device], bool] = device_works,
    ) -> None:
        self._predictors = tuple(predictors)
        self._busy = [0] * len(self._predictors)
        self._lost = set[int]()
        self._works = works
        self._lock = threading.Lock()
        self._spares = [_Spare(make) for make in spares]

    @classmethod
    def of(cls, checkpoint: Checkpoint, choice: EngineChoice) -> PredictorPool:
        """A predictor on each GPU that works, or one on the CPU.

        When a GPU has no memory left, the CPU answers; when the CPU has none, it looks at the same region in voxels of
        about twice the edge, which takes a fifth of the memory or less.

        Args:
            checkpoint: weights and specification.
            choice: what is to compute. A conversion is waited for where OpenVINO is forced.

        Raises:
            CheckpointError, EngineError: see :func:`~deepgrow3d_app.model.engine_choice.make_engine`.
        """
        spec = checkpoint.spec
        gpus = [gpu for number in range(torch.cuda.device_count()) if device_works(gpu := torch.device("cuda", number))]
        devices = [torch.device("cpu")] if choice.name == "openvino" or not gpus else gpus
        is_forced = choice.name == "openvino"
        predictors = [Predictor(spec, make_engine(checkpoint, choice, device, waits=is_forced)) for device in devices]
        coarse = coarse_spec(spec)
        makers = [] if devices[0].type == "cpu" else [lambda: Predictor(spec, _on_cpu(checkpoint))]
        if coarse is not None:
            makers.append(lambda: Predictor(coarse, _on_cpu(checkpoint)))
        return cls(predictors, makers)

    @property
    def devices(self) -> tuple[str, ...]:
        """What computes now, for people to read."""
        working = [one for place, one in enumerate(self._predictors) if place not in self._lost]
        if not working and self._spares:
            working = [self._spares[0].predictor()]
        return tuple(predictor.engine.device for predictor in working)

    @property
    def spec(self) -> ModelSpec:
        """What the network is fed with."""
        return self._predictors[0].spec

    def settle(self, timeout_s: float) -> None:
        """Return once each device has its fastest engine, or has given it up, or the time is over."""
        for predictor in self._predictors:
            if isinstance(predictor.engine, RelayEngine):
                predictor.engine.wait(timeout_s)

    def predict(
        self,
        volume: Volume,
        clicks: Iterable[Click],
        previous: Mask | BoxedMask | None = None,
        latest: Collection[Click] = (),
    ) -> Prediction:
        """See :meth:`Predictor.predict`; :attr:`Prediction.device` says who answered.

        Raises:
            OutOfMemory: there is no memory for an answer on any device.
        """
        clicks = tuple(clicks)
        while len(self._lost) < len(self._predictors):
            with self._least_busy() as place:
                predictor = self._predictors[place]
                try:
                    return predictor.predict(volume, clicks, previous, latest)
                except (MemoryError, RuntimeError) as error:
                    if _is_out_of_memory(error):
                        logger.warning("No memory left on %s: %s", predictor.engine.device, error)
                        break
                    if self._works(predictor.engine.input_device):
                        raise
                    self._lose(place, error)
        for spare in self._spares:
            try:
                return spare.predictor().predict(volume, clicks, previous, latest)
            except (MemoryError, RuntimeError) as error:  # noqa: PERF203 - the next one takes less
                if not _is_out_of_memory(error):
                    raise
                logger.warning("No memory left: %s", error)
        raise OutOfMemory("There is no memory left for an answer. Close other programs, or try again in a moment.")

    @contextlib.contextmanager
    def _least_busy(self) -> Iterator[int]:
        """The place of the device to ask; a lost one only where another thread has lost the last one just now."""
        with self._lock:
            working = [place for place in range(len(self._busy)) if place not in self._lost] or [0]
            place = min(working, key=self._busy.__getitem__)
            self._busy[place] += 1
        try:
            yield place
        finally:
            with self._lock:
                self._busy[place] -= 1

    def _lose(self, place: int, error: Exception) -> None:
        device = self._predictors[place].engine.device
        logger.error("%s is lost and not asked again. Restart the server once it is back. %s", device, error)
        with self._lock:
            self._lost.add(place)


class _Spare:
    """A predictor that takes memory from when it is first needed."""

    def __init__(self, make: Callable[[], Predictor]) -> None:
        self._make = make
        self._made: Predictor | None = None
        self._lock = threading.Lock()

    def predictor(self) -> Predictor:
        with self._lock:
            self._made = self._made or self._make()
            return self._made


def coarse_spec(spec: ModelSpec) -> ModelSpec | None:
    """The same region in about half as many voxels along each axis; ``None`` where the network takes no fewer."""
    i, j, k = (-(-extent // 2 // spec.patch_step) * spec.patch_step for extent in spec.patch_shape)
    if (i, j, k) == spec.patch_shape:
        return None
    di, dj, dk = (
        edge * extent / fewer for edge, extent, fewer in zip(spec.spacing_mm, spec.patch_shape, (i, j, k), strict=True)
    )
    return dataclasses.replace(spec, patch_shape=(i, j, k), spacing_mm=(di, dj, dk))


def _on_cpu(checkpoint: Checkpoint) -> TorchEngine:
    return TorchEngine(checkpoint.network(), torch.device("cpu"))


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a type of its own for GPUs only; the CPU's allocators of torch and OpenVINO say it in words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)
