"""Which clicks were answered, and from which earlier mask: enough to compute every mask anew.

Viewers send their foreground and background clicks as two lists, so a request does not say which click came last.
The log does. It outlives the masks in :mod:`click_memory` and the server's process: whatever was answered once is
answered in the same way again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.serving.click_memory import Clicks, Subject

logger = logging.getLogger(__name__)

MAX_ANSWERS = 1000
"""To one subject: further ones are not logged, and would be computed from the last one that is."""

MAX_FILES = 10_000
HISTORIES_IN_MEMORY = 256
SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Answered:
    """Clicks that were answered.

    Attributes:
        clicks: all of them.
        made_from: those whose mask was the previous one, fewer of the same; ``None`` for a start from nothing.
    """

    clicks: Clicks
    made_from: Clicks | None


def way_to(asked: Clicks, history: Iterable[Answered]) -> list[Clicks]:
    """Which clicks to answer one after the other, each from the mask of those before, up to ``asked``.

    Clicks that were answered are answered in the same way again; others start from the most of them that were, the
    latest where several have as many.
    """
    made_from = {answered.clicks: answered.made_from for answered in history}
    if asked in made_from:
        earlier = made_from[asked]
    else:
        earlier = max((clicks for clicks in reversed(made_from) if clicks < asked), key=len, default=None)
    way = [asked]
    while earlier is not None:
        way.append(earlier)
        earlier = made_from.get(earlier)
    return way[::-1]


class ClickLog:
    """What was answered, by subject; thread-safe.

    Args:
        folder: where it is kept, a file for each subject; ``None`` keeps the latest histories in memory only. A
            folder that cannot be written to has the same effect, and is reported once.
        max_files: the files longest unused are removed beyond that.
    """

    def __init__(self, folder: Path | None, max_files: int = MAX_FILES) -> None:
        self._folder = folder
        self._max_files = max_files
        self._lock = threading.Lock()
        self._is_failing = False
        self._histories: OrderedDict[str, dict[Clicks, Answered]] = OrderedDict()

    def history(self, subject: Subject) -> Sequence[Answered]:
        """All that was answered about ``subject``, whatever model answered, the latest last.

        Clicks that were asked for again, as after an undo, count as of then while this process runs.
        """
        with self._lock:
            return list(self._history(_key(subject)).values())

    def add(self, subject: Subject, answered: Answered) -> None:
        """Log one answer, made from one that is logged; clicks that are logged already stay as they are."""
        key = _key(subject)
        with self._lock:
            history = self._history(key)
            if answered.clicks in history:
                history[answered.clicks] = history.pop(answered.clicks)  # the latest again
                return
            is_known = answered.made_from is None or answered.made_from in history
            if not is_known or len(history) >= MAX_ANSWERS:
                return
            history[answered.clicks] = answered
            line = {
                "clicks": _listed(answered.clicks),
                "made_from": None if answered.made_from is None else _listed(answered.made_from),
            }
            self._write(key, json.dumps(line) + "\n", is_new=len(history) == 1)

    def forget(self, image: str) -> None:
        """Remove the logs of all subjects of ``image``, which is gone."""
        prefix = _digest(image)
        with self._lock:
            for key in [key for key in self._histories if key.startswith(prefix)]:
                del self._histories[key]
            if self._folder is not None:
                for file in self._folder.glob(f"{prefix}*{SUFFIX}"):
                    self._try(partial(file.unlink, missing_ok=True))

    def _history(self, key: str) -> dict[Clicks, Answered]:
        if key not in self._histories:
            self._histories[key] = self._read(key)
        self._histories.move_to_end(key)
        while len(self._histories) > HISTORIES_IN_MEMORY:
            self._histories.popitem(last=False)
        return self._histories[key]

    def _read(self, key: str) -> dict[Clicks, Answered]:
        """The history on disk, up to the first line that is damaged; what comes after that is cut off."""
        if self._folder is None:
            return {}
        file = self._folder / (key + SUFFIX)
        history: dict[Clicks, Answered] = {}
        content, good_bytes = b"", 0
        try:
            content = file.read_bytes()
            for line in content.splitlines(keepends=True):
                if not line.endswith(b"\n"):  # a process was killed while it wrote
                    break
                parsed = json.loads(line)
                clicks, earlier = _parsed(parsed["clicks"]), parsed["made_from"]
                made_from = None if earlier is None else _parsed(earlier)
                if made_from is not None and not made_from < clicks:
                    raise ValueError("an answer was made from other clicks")
                # Another process may have logged the same clicks: the first answer counts.
                history.setdefault(clicks, Answered(clicks, made_from))
                good_bytes += len(line)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            logger.warning("The click log '%s' is damaged (%s): %d answers are used", key, error, len(history))
        if good_bytes < len(content):
            self._try(lambda: os.truncate(file, good_bytes))
        return history

    def _write(self, key: str, line: str, *, is_new: bool) -> None:
        if self._folder is None:
            return
        folder = self._folder

        def append() -> None:
            if is_new:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._remove_oldest(folder)
            with (folder / (key + SUFFIX)).open("a", encoding="utf-8") as file:
                file.write(line)

        self._try(append)

    def _remove_oldest(self, folder: Path) -> None:
        files = list(folder.glob(f"*{SUFFIX}"))
        if len(files) >= self._max_files:
            by_age = sorted(files, key=_age)
            for file in by_age[: len(files) // 10 + 1]:  # some at once: looking at all of them takes a while
                self._histories.pop(file.stem, None)  # what is logged next would continue a file that is gone
                file.unlink(missing_ok=True)

    def _try(self, change: Callable[[], object]) -> None:
        try:
            change()
        except OSError as error:
            if not self._is_failing:
                logger.warning("Clicks cannot be logged: %s", error.strerror)
            self._is_failing = True
        else:
            self._is_failing = False


def _key(subject: Subject) -> str:
    """The same for all models: a new one answers the same clicks in the same order."""
    about = json.dumps([subject.image_version, subject.label, subject.client])
    return f"{_digest(subject.image)}-{_digest(about)}"


def _listed(clicks: Clicks) -> list[list[int]]:
    return sorted([*click.index, int(click.is_positive)] for click in clicks)


def _parsed(listed: Iterable[Sequence[int]]) -> Clicks:
    return frozenset(Click((i, j, k), bool(sign)) for i, j, k, sign in listed)


def _age(file: Path) -> float:
    """When it was written; as if long ago where another process has removed it."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
