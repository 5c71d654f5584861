"""What an unfinished evaluation has found so far, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from pydantic import TypeAdapter

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.evaluation.results import Results, Setting, Trial, TrialKey

RESULTS = "results.json"
JOURNAL = "unfinished.jsonl"


class Journal:
    """Finished trials of one setting in a folder: those of ``results.json``, or of an unfinished run.

    A line is on the disk before the next trial begins. The last line of a killed run may be torn: it is
    left out, and its trial is done again.

    Args:
        folder: where the evaluation writes.
        setting: what is evaluated.

    Raises:
        InvalidRequest: the folder holds another evaluation, or a damaged journal.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self._folder = folder
        self._file = folder / JOURNAL
        self._setting = json.dumps({"setting": digest(setting)})
        self.trials: dict[TrialKey, Trial] = {}
        if self._file.exists():
            self._read()
        elif (folder / RESULTS).exists():
            results = Results.load(folder / RESULTS)
            if digest(results.setting) != digest(setting):
                raise _another_evaluation(folder)
            self.trials = {trial.key: trial for trial in results.trials}

    def add(self, trial: Trial) -> None:
        """Keep a finished trial.

        Raises:
            OSError: the disk is full; the next run goes on with the trials before.
        """
        if not self._file.exists():
            self._write(self._setting)
        self._write(TypeAdapter(Trial).dump_json(trial).decode())
        self.trials[trial.key] = trial

    def close(self) -> None:
        """Forget the journal: everything stands in ``results.json`` now."""
        self._file.unlink(missing_ok=True)

    def _read(self) -> None:
        content = self._file.read_bytes()
        # What follows the last line break was torn by a kill.
        os.truncate(self._file, content.rfind(b"\n") + 1)
        head, *lines = content.decode(errors="replace").split("\n")[:-1] or [""]
        if not head:
            self._write(self._setting)
        elif head != self._setting:
            raise _another_evaluation(self._folder)
        for number, line in enumerate(lines, start=2):
            try:
                trial = TypeAdapter(Trial).validate_json(line)
            except ValueError as error:
                raise InvalidRequest(
                    f"'{self._file}' is damaged in line {number}. Remove that line, and its trial is done again; or "
                    "remove the file to start over."
                ) from error
            self.trials[trial.key] = trial

    def _write(self, line: str) -> None:
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # which names no file where the disk is full
            raise OSError(error.errno, error.strerror, str(self._file)) from error


def digest(setting: Setting) -> str:
    """A name for ``setting``: equal for equal settings only."""
    return hashlib.sha256(TypeAdapter(Setting).dump_json(setting)).hexdigest()


def _another_evaluation(folder: Path) -> InvalidRequest:
    return InvalidRequest(
        f"'{folder}' holds another evaluation (other cases, structures, clicks, methods, users, hands, version, device "
        "or arithmetic). "
        "Name another --output, or remove that folder to start over."
    )
