"""Which clicks were answered, and from which earlier mask: enough to compute every mask anew.

Viewers send their foreground and background clicks as two lists, so a request does not say which click came last.
The log does. It outlives the masks in :mod:`click_memory` and the server's process, and servers on the same folder
share it: whatever was answered once, by any of them, is answered in the same way again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.serving.click_memory import Clicks, Subject
from deepgrow3d_app.serving.file_version import FileVersion, file_version

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


@dataclass(slots=True)
class _History:
    """What is known of one subject.

    Attributes:
        version: its file's, as far as it is known here.
        answers: by their clicks, the latest last.
        is_cut: whether the file ends within a line: its process was killed, or is still writing it.
    """

    version: FileVersion
    answers: dict[Clicks, Answered]
    is_cut: bool


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
    """What was answered, by subject; safe to share between threads, and its folder between processes.

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
        self._histories: OrderedDict[str, _History] = OrderedDict()

    def history(self, subject: Subject) -> Sequence[Answered]:
        """All that was answered about ``subject``, whatever model answered, the latest last.

        Clicks that were asked for again, as after an undo, count as of then while this process runs and no other one
        answers.
        """
        with self._lock:
            return list(self._history(_key(subject)).answers.values())

    def add(self, subject: Subject, answered: Answered) -> bool:
        """Log one answer; clicks that are logged already stay as they are.

        Returns:
            Whether these clicks are answered like that. Where not, another process answered them first, or removed
            what they were made from: look at the history again.
        """
        key = _key(subject)
        with self._lock:
            history = self._history(key)
            answers = history.answers
            if answered.clicks in answers:
                counts = answers[answered.clicks] = answers.pop(answered.clicks)  # the latest again
                return counts.made_from == answered.made_from
            if answered.made_from is not None and answered.made_from not in answers:
                return False
            if len(answers) >= MAX_ANSWERS:
                return True
            answers[answered.clicks] = answered
            self._write(key, history, answered)
            counts = self._history(key).answers.get(answered.clicks, answered)
            return counts.made_from == answered.made_from

    def forget(self, image: str) -> None:
        """Remove the logs of all subjects of ``image``, which is gone."""
        prefix = _digest(image)
        with self._lock:
            for key in [key for key in self._histories if key.startswith(prefix)]:
                del self._histories[key]
            if self._folder is not None:
                for file in self._folder.glob(f"{prefix}*{SUFFIX}"):
                    self._try(partial(file.unlink, missing_ok=True))

    def _history(self, key: str) -> _History:
        """What is known of a subject, read again where another process wrote to its file, or removed it."""
        version = () if self._folder is None else file_version(self._file(self._folder, key))
        history = self._histories.get(key)
        if history is None or history.version != version:
            history = self._histories[key] = self._read(key, version)
        self._histories.move_to_end(key)
        while len(self._histories) > HISTORIES_IN_MEMORY:
            self._histories.popitem(last=False)
        return history

    def _read(self, key: str, version: FileVersion) -> _History:
        """The history on disk; what is damaged is left out, with all that was made from it.

        ``version`` is from before: what is written meanwhile is found the next time.
        """
        history = _History(version, {}, is_cut=False)
        if self._folder is None:
            return history
        try:
            content = self._file(self._folder, key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return history
        except OSError as error:
            logger.warning("The click log '%s' cannot be read (%s)", key, error.strerror)
            return history
        *lines, last = content.split(b"\n")
        history.is_cut = bool(last)
        faults = []
        for line in filter(None, lines):
            try:
                _take_in(history.answers, line)
            except (ValueError, KeyError, TypeError, IndexError) as error:  # noqa: PERF203 - each line on its own
                faults.append(error)
        if faults:
            used = len(history.answers)
            logger.warning("The click log '%s' is damaged (%s): %d answers are used", key, faults[0], used)
        if last:
            with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
                _take_in(history.answers, last)  # all of it but the end of the line
        return history

    def _write(self, key: str, history: _History, answered: Answered) -> None:
        if self._folder is None:
            return
        folder = self._folder
        file = self._file(folder, key)
        content = (b"\n" if history.is_cut else b"") + _line(answered)
        size = history.version[1] if history.version else 0

        def append() -> None:
            if len(history.answers) == 1:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._remove_oldest(folder)
            with file.open("ab", buffering=len(content) + 1) as log:  # in one piece: others may write too
                log.write(content)
            version = file_version(file)
            if version and version[1] == size + len(content):  # else somebody did, and it is read again
                history.version, history.is_cut = version, False

        self._try(append)

    def _remove_oldest(self, folder: Path) -> None:
        files = list(folder.glob(f"*{SUFFIX}"))
        if len(files) >= self._max_files:
            by_age = sorted(files, key=_age)
            for file in by_age[: len(files) // 10 + 1]:  # some at once: looking at all of them takes a while
                file.unlink(missing_ok=True)

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / (key + SUFFIX)

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
    about = [subject.image_version, subject.label, subject.client]
    if subject.annotator:  # where nobody signs in, files are called as they always were
        about.append(subject.annotator)
    return f"{_digest(subject.image)}-{_digest(json.dumps(about))}"


def _line(answered: Answered) -> bytes:
    made_from = None if answered.made_from is None else _listed(answered.made_from)
    return json.dumps({"clicks": _listed(answered.clicks), "made_from": made_from}).encode() + b"\n"


def _take_in(answers: dict[Clicks, Answered], line: bytes) -> None:
    """Add what ``line`` says to ``answers``; raises where that cannot be understood."""
    parsed = json.loads(line)
    clicks, earlier = _parsed(parsed["clicks"]), parsed["made_from"]
    made_from = None if earlier is None else _parsed(earlier)
    if made_from is not None and not (made_from < clicks and made_from in answers):
        raise ValueError("an answer was made from other clicks")
    # Another process may have logged the same clicks: the first answer counts.
    answers.setdefault(clicks, Answered(clicks, made_from))


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
