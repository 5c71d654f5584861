"""Patches drawn ahead by other processes, so that a GPU does not wait for them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy.typing as npt
import torch

from deepgrow3d_app.cases.worker_process import end_with_parent
from deepgrow3d_app.errors import DeepGrow3DError, TrainingError
from deepgrow3d_app.model.cores import usable_cores
from deepgrow3d_app.training.patches import Patch, PatchSource
from deepgrow3d_app.training.ranks import Ranks

Drawn = tuple[npt.NDArray[Any], npt.NDArray[Any], float, bool]

_source: PatchSource
"""What a worker draws from."""


def workers_for(ranks: Ranks) -> int:
    """How many processes draw for this one: on a GPU, this machine's cores but those of its training processes.

    Cores are those that may be used: of a container, of a job on a cluster. On a CPU nobody draws ahead:
    the network's own arithmetic takes every core, and patches cost a tenth of it.
    """
    if ranks.device.type == "cpu":
        return 0
    of_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.count))  # torchrun says so
    return max(1, usable_cores() // of_this_machine - 1)


class PatchWorkers:
    """The patches of a :class:`PatchSource`, the same ones, made while the ones before are worked on.

    Use as a context manager: the processes end with it, or with this process.

    Args:
        source: what to draw from.
        count: of processes.
    """

    def __init__(self, source: PatchSource, count: int) -> None:
        # Not forked: a process that uses a GPU cannot be.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _begin, (source,))
        self._ahead: dict[int, tuple[int, Future[Drawn]]] = {}

    def __enter__(self) -> PatchWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def expect(self, slots: Iterable[int], number: int) -> None:
        """Begin with the patch ``number`` of each slot: :meth:`draw` is about to be asked for it.

        Raises:
            TrainingError: a process was killed.
        """
        with _deaths_told():
            for slot in slots:
                self._ahead[slot] = (number, self._pool.submit(_draw, slot, number))

    def draw(self, slot: int, number: int) -> Patch:
        """See :meth:`PatchSource.draw`; what the slot needs next is begun.

        Raises:
            TrainingError: as there; or a process was killed.
        """
        known = self._ahead.get(slot)
        if known is None or known[0] != number:
            self.expect([slot], number)
        with _deaths_told():
            image, truth, edge_mm, is_new = self._ahead[slot][1].result()
        self.expect([slot], number + 1)
        return Patch(torch.from_numpy(image), torch.from_numpy(truth), edge_mm, is_new)


@contextlib.contextmanager
def _deaths_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise TrainingError(
            "A process that draws patches was killed, perhaps for lack of memory. "
            "Go on with --resume, and fewer --workers."
        ) from error


def _begin(source: PatchSource) -> None:
    global _source
    _source = source
    # Ctrl+C reaches every process of the terminal. These end with the training, which answers it, and say nothing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    end_with_parent()


def _draw(slot: int, number: int) -> Drawn:
    try:
        patch = _source.draw(slot, number)
    except DeepGrow3DError as error:
        # As text: one with arguments of its own cannot be read at the other end, which would take this for a death.
        raise TrainingError(str(error)) from None
    # As arrays: tensors would travel as open files, of which a process may have few.
    return patch.image.numpy(), patch.truth.numpy(), patch.edge_mm, patch.is_new
