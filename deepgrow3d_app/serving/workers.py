"""Threads for what takes long, so that the event loop is free to answer everybody else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

from deepgrow3d_app.errors import Busy

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """A bounded number of threads, and a bounded queue before them.

    Args:
        threads: calls that run at once.
        max_waiting: calls that may wait for a thread.
    """

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._max_waiting = max_waiting

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``function(*args, **kwargs)`` in a thread, once one is free.

        Raises:
            Busy: too many calls wait already.
        """
        waiting = self._limiter.statistics().tasks_waiting
        if waiting >= self._max_waiting and self._limiter.available_tokens < 1:
            raise Busy(f"{waiting} requests wait already, the limit is {self._max_waiting}. Try again in a moment.")
        return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)
