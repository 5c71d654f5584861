"""The folder of a training run: what it leaves, what it can go on from, and who may write there.

plan.json            what is trained and how
model.safetensors    the network so far: the moving average of its weights
best.safetensors     the one with the best validation so far, where there are validation cases
log.jsonl            a line of figures now and then
tensorboard/         the same figures as curves
state.pt             everything that --resume needs
cases/               arrays of those cases that were not prepared before
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from deepgrow3d_app.errors import Busy, CheckpointError, InvalidRequest, TrainingError
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.training.plan import TrainingPlan, first_difference, read_plan
from deepgrow3d_app.volume.atomic_file import replace_file

STATE_VERSION = 2
VALIDATION_KEY = "validation"
"""Where the network with the best validation says in its origin how good that was."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run, and its state."""

    path: Path

    @property
    def plan_file(self) -> Path:
        """What is trained and how."""
        return self.path / "plan.json"

    @property
    def model_file(self) -> Path:
        """The network so far."""
        return self.path / "model.safetensors"

    @property
    def best_file(self) -> Path:
        """The network with the best validation."""
        return self.path / "best.safetensors"

    @property
    def log_file(self) -> Path:
        """Figures, a JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def curves(self) -> Path:
        """The same as TensorBoard reads it."""
        return self.path / "tensorboard"

    @property
    def state_file(self) -> Path:
        """Everything that ``--resume`` needs."""
        return self.path / "state.pt"

    @property
    def cases(self) -> Path:
        """Arrays of cases that were not prepared before."""
        return self.path / "cases"

    @property
    def has_begun(self) -> bool:
        """Whether it holds a run that started from a network: from before its first saved state on."""
        return self.plan_file.is_file() and self.model_file.is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other runs; the lock of a process that was killed is free.

        Raises:
            Busy: another process trains here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                for partial in self.path.glob(".*.part"):  # of a save in which a process was killed
                    partial.unlink()
                yield
        except Timeout as error:
            raise Busy(f"Another process trains in '{self.path}'. Wait for it, or choose another folder.") from error

    def begin(self, plan: TrainingPlan, first: Checkpoint | None = None) -> None:
        """Make the folder one of a new run, which starts from the network ``first`` or from random weights.

        The plan is written last: a folder without one holds nothing that could be gone on with.

        Raises:
            InvalidRequest: it holds a run, which would be lost.
        """
        if self.state_file.exists() or (self.model_file.exists() and not self._has_only_begun()):
            raise InvalidRequest(
                f"'{self.path}' holds a run. Go on with it by --resume, or choose another folder for a new one."
            )
        self.plan_file.unlink(missing_ok=True)
        if first is None:
            self.model_file.unlink(missing_ok=True)  # what an earlier try was to start from
        else:
            first.save(self.model_file)
        replace_file(self.log_file, io.BytesIO(b""))
        replace_file(self.plan_file, io.BytesIO(plan.to_json().encode()))

    def _has_only_begun(self) -> bool:
        """Whether the network is the one that the run was to start from: cases, say, were refused then."""
        try:
            return Checkpoint.load(self.model_file).origin.get("steps") == "0"
        except CheckpointError:
            return False

    def go_on(self, plan: TrainingPlan) -> None:
        """Make ``plan`` that of the run which is here; its budget may be another one.

        Raises:
            InvalidRequest: there is no run, or it has another specification or recipe.
        """
        if difference := first_difference(plan, self.plan()):
            raise InvalidRequest(
                f"The run in '{self.path}' cannot be resumed by another plan: {difference}. Leave the option out."
            )
        replace_file(self.plan_file, io.BytesIO(plan.to_json().encode()))

    def plan(self) -> TrainingPlan:
        """The plan of the run that is here.

        Raises:
            InvalidRequest: there is none, or it is damaged.
        """
        if not self.plan_file.is_file():
            raise InvalidRequest(f"There is no run in '{self.path}' to resume. Leave --resume out to start one.")
        return read_plan(str(self.plan_file))

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the saved state; a kill or a full disk leaves the old one.

        Raises:
            OSError: the disk is full.
        """
        buffer = io.BytesIO()
        torch.save({"version": STATE_VERSION, **state}, buffer)
        buffer.seek(0)
        replace_file(self.state_file, buffer)

    def read_state(self) -> dict[str, Any] | None:
        """The saved state; ``None`` where the run was stopped before its first save.

        Raises:
            TrainingError: it is damaged, was written by another version, or is gone while the network is there.
        """
        remedy = f"Start anew in another folder; '{self.model_file.name}' still holds the network (--start-from)."
        if not self.state_file.is_file():
            if self.model_file.is_file() and Checkpoint.load(self.model_file).origin.get("steps") != "0":
                raise TrainingError(f"There is no '{self.state_file}' to go on from. {remedy}")
            return None
        try:
            state: dict[str, Any] = torch.load(self.state_file, map_location="cpu", weights_only=True)
        except Exception as error:  # whose text would have the user turn a safeguard off
            raise TrainingError(f"'{self.state_file}' is damaged. {remedy}") from error
        if state.get("version") != STATE_VERSION:
            raise TrainingError(f"'{self.state_file}' was written by another version. {remedy}")
        return state

    def best_validation(self) -> float:
        """How good the network with the best validation is, as it says itself; -1 where there is none."""
        try:
            return float(Checkpoint.load(self.best_file).origin.get(VALIDATION_KEY, "-1"))
        except (CheckpointError, ValueError):
            return -1.0

    def cut_log(self, step: int) -> None:
        """Drop the log's lines after ``step``: a resumed run writes them again. A torn line goes too."""
        lines = self.log_file.read_text(encoding="utf-8").splitlines() if self.log_file.is_file() else []
        kept = "".join(line + "\n" for line in lines if 0 <= _step_of(line) <= step)
        replace_file(self.log_file, io.BytesIO(kept.encode()))


def _step_of(line: str) -> int:
    """The step that a line of the log tells of; -1 for a torn line."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1
