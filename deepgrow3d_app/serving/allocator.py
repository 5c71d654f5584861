"""How many heaps the C library may keep.

Any thread may free what another one allocated, and glibc gives threads heaps of their own, up to eight for each core.
What is free in one of them is not used by the others, nor given back: a server whose clicks are answered by changing
threads keeps growing by it, though it uses no more.
"""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX = -8
"""Of ``malloc.h``."""

ARENAS = 2
"""The main one, and one beside it, so that a thread that allocates seldom waits for another."""


def share_heaps(arenas: int = ARENAS) -> bool:
    """Let all threads of this process share ``arenas`` heaps from now on, whatever ``MALLOC_ARENA_MAX`` says.

    Returns:
        Whether that could be asked for: only glibc has such heaps.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_ARENA_MAX, arenas))
