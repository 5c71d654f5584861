"""Warnings that are written once: what is looked at in every poll may stay damaged for weeks."""

from __future__ import annotations

import logging
import threading


class OnceLog:
    """A log that takes each message once; thread-safe.

    Args:
        logger: where the messages are written.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._written: set[str] = set()
        self._lock = threading.Lock()

    def warn(self, message: str) -> None:
        """Write ``message`` down, unless that was done before."""
        with self._lock:
            if message in self._written:
                return
            self._written.add(message)
        self._logger.warning(message)
