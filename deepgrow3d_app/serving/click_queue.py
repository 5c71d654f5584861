"""Clicks wait here for a thread: first come, first served, and only the newest of each annotator's own."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import Busy, Cancelled, Superseded
from deepgrow3d_app.serving.compute_threads import ComputeThreads

R = TypeVar("R")

LOOK_EVERY_S = 0.25
"""How often it is asked whether the client of a waiting click is still there."""

USUAL_S = 0.5
"""What a click is assumed to take until some were measured."""

WEIGHT_OF_NEWEST = 0.2


@dataclass(frozen=True, slots=True)
class ClickSet:
    """Whose clicks they are.

    Attributes:
        annotator: who asks about which structure of which image; only clicks of one annotator replace each other.
        clicks: all of them.
    """

    annotator: tuple[str, ...]
    clicks: frozenset[Click]

    def replaces(self, older: ClickSet) -> bool:
        """Whether nobody needs the answer to ``older`` any more: a click was added to it, or taken back."""
        return self.annotator == older.annotator and (self.clicks >= older.clicks or self.clicks <= older.clicks)


@dataclass(frozen=True, slots=True)
class Turn(Generic[R]):
    """What came of a call.

    Attributes:
        result: what the function returned.
        position: how many calls were before it when it came, those that ran included; 0 where a thread was free.
        waited_s: seconds until a thread was free.
    """

    result: R
    position: int
    waited_s: float


@dataclass(slots=True, eq=False)
class _Waiting:
    request: ClickSet
    called: anyio.Event = field(default_factory=anyio.Event)
    is_superseded: bool = False


class ClickQueue:
    """A bounded number of threads, and a bounded queue before them. Used by one event loop.

    Args:
        threads: calls that run at once.
        max_waiting: calls that may wait for a thread.
    """

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._threads = threads
        self._max_waiting = max_waiting
        self._compute = ComputeThreads(threads)
        self._running = 0
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._usual_s = USUAL_S

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread now."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Calls that have one."""
        return self._running

    @property
    def is_full(self) -> bool:
        """Whether as many calls wait as may. Never where none may: a call that runs fills no queue."""
        return self._running >= self._threads and len(self._waiting) >= max(1, self._max_waiting)

    async def run(
        self, function: Callable[[], R], request: ClickSet, is_gone: Callable[[], Awaitable[bool]]
    ) -> Turn[R]:
        """``function()`` in a thread, once one is free.

        Args:
            function: what is called.
            request: decides which waiting calls are given up for this one.
            is_gone: asked now and then while the call waits; once true, it is given up.

        Raises:
            Busy: too many calls wait already; ``retry_after_s`` says when there may be room.
            Superseded: a newer call of the same annotator came while this one waited.
            Cancelled: the client is gone.
        """
        came = time.perf_counter()
        for other in self._waiting:
            if request.replaces(other.request):
                other.is_superseded = True
                other.called.set()
        before = [other for other in self._waiting if not other.is_superseded]
        position = self._running + len(before) if self._running >= self._threads else 0
        if position:
            if len(before) >= self._max_waiting:
                raise Busy(
                    f"{len(before)} clicks wait already, the limit is {self._max_waiting}. Try again in a moment.",
                    retry_after_s=math.ceil(self._usual_s * (len(before) + 1) / self._threads),
                )
            await self._wait(_Waiting(request), is_gone)
        else:
            self._running += 1
        started = time.perf_counter()
        try:
            result = await self._compute.run(function)
        finally:
            self._usual_s += WEIGHT_OF_NEWEST * (time.perf_counter() - started - self._usual_s)
            self._call_next()
        return Turn(result, position, started - came)

    async def _wait(self, waiting: _Waiting, is_gone: Callable[[], Awaitable[bool]]) -> None:
        """Return when it is this one's turn, which counts as running from then on."""
        self._waiting.append(waiting)
        try:
            while not waiting.called.is_set():
                with anyio.move_on_after(LOOK_EVERY_S):
                    await waiting.called.wait()
                if not waiting.called.is_set() and await is_gone():
                    raise Cancelled("The client left before its click was answered.")
            if waiting.is_superseded:
                raise Superseded("A newer click on this structure took the place of this one. Use the answer to that.")
        except BaseException:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not waiting.is_superseded:
                self._call_next()  # it was its turn already
            raise

    def _call_next(self) -> None:
        """Give the thread of a call that ended to the first one that waits."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.is_superseded:
                first.called.set()
                return
        self._running -= 1
