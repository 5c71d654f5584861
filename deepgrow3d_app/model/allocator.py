"""How the C library keeps memory that is free: in how many heaps, and whether it gives it back at once.

Any thread may free what another one allocated, and glibc gives threads heaps of their own, up to eight for each core.
What is free in one of them is not used by the others, nor given back: a server whose clicks are answered by changing
threads keeps growing by it, though it uses no more.

Large arrays glibc asks the system for, one by one, and gives each back when it is freed. The system hands memory out
in pages, which it clears when they are first touched: a training step, which allocates the same arrays as the one
before it, would spend a good part of its time on that.

Serving asks for the one and training for the other, so this lies on a floor below both.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
"""This one and the next two are of ``malloc.h``."""
M_MMAP_MAX = -4
M_ARENA_MAX = -8

ARENAS = 2
"""The main one, and one beside it, so that a thread that allocates seldom waits for another."""

NEVER = -1
"""How many bytes may be free at the end of a heap before they are given back: glibc takes this for no bound."""


def share_heaps(arenas: int = ARENAS) -> bool:
    """Let all threads of this process share ``arenas`` heaps from now on, whatever ``MALLOC_ARENA_MAX`` says.

    Returns:
        Whether that could be asked for: only glibc has such heaps.
    """
    return _set_option(M_ARENA_MAX, arenas)


def keep_freed_memory() -> bool:
    """Let this process keep large arrays that are freed, for the next ones: for training, whose steps are alike.

    It then has the most that it ever used until it ends.

    Returns:
        Whether that could be asked for: only glibc has these options.
    """
    return _set_option(M_MMAP_MAX, 0) and _set_option(M_TRIM_THRESHOLD, NEVER)


def _set_option(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(option, value))
