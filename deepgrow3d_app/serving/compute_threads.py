"""Threads that PyTorch computes in: as few as there can be.

GCC's OpenMP keeps a team of helpers for every thread that ever computed something in parallel. Once all teams
together have more threads than there are cores, helpers that wait fall asleep at once, and to wake them takes longer
than most of a click's many small steps: a click then took three times as long. So clicks are computed in threads
that share the cores and do nothing else, and what is computed elsewhere is computed in a thread that ends.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import anyio
import torch

R = TypeVar("R")


class ComputeThreads:
    """Threads that live as long as the process and share its cores.

    Args:
        count: functions that are computed at once.
    """

    def __init__(self, count: int) -> None:
        each = max(1, torch.get_num_threads() // count)
        self._executor = ThreadPoolExecutor(
            count, thread_name_prefix="click", initializer=torch.set_num_threads, initargs=(each,)
        )

    async def run(self, function: Callable[[], R]) -> R:
        """``function()`` in one of them. It is waited for even when the caller is cancelled: it would go on anyway."""
        context = contextvars.copy_context()  # what it logs belongs to the request
        future = asyncio.wrap_future(self._executor.submit(context.run, function))
        with anyio.CancelScope(shield=True):
            await asyncio.wait([future])
        return future.result()


def aside(function: Callable[[], R]) -> R:
    """``function()`` in a thread that ends with it, and its team of helpers too."""
    with ThreadPoolExecutor(1, thread_name_prefix="aside") as executor:
        return executor.submit(function).result()
