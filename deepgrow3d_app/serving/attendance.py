"""Which server works on something that is kept in a folder: others see whether it still lives."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from deepgrow3d_app.errors import Busy

LOOKED_AT_S = 5.0
"""Whoever looks whether a lock is held holds it for a moment."""


class Attendance:
    """Held by the server that works, until it has come to an end or was killed.

    Args:
        folder: what is worked on; it has to exist where :meth:`begin` is called.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Begun by a request, ended by a thread.
        self._lock = FileLock(folder / ".attended", timeout=0, thread_local=False)

    def begin(self) -> None:
        """From now on this server works.

        Raises:
            Busy: another one does.
        """
        try:
            self._lock.acquire(timeout=LOOKED_AT_S)
        except Timeout as error:
            raise Busy("Another server is at work on it. Wait until it has ended.") from error

    def end(self) -> None:
        """It has come to an end."""
        self._lock.release()

    def is_held(self) -> bool:
        """Whether a server works, this one or another."""
        if self._lock.is_locked:
            return True
        try:
            with self._lock:
                return False
        except Timeout:
            return True
