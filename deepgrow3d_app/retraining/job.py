"""The folder of one retraining: what it was asked for, where it stands, and what became of it.

job.json             the order, and where cases and replayed cases lie
cases.json           the site's labelled cases, a manifest as ``deepgrow3d prepare`` takes it
parent.safetensors   the network that was served when it began
run/                 the training run, which can be resumed
candidate.safetensors  what was judged last
state.json           where it stands; also what viewers are shown
log.txt              what the process said
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.retraining.gate import Decision
from deepgrow3d_app.retraining.order import RetrainingOrder
from deepgrow3d_app.training.run_folder import RunFolder
from deepgrow3d_app.volume.atomic_file import replace_file

Stage = Literal["preparing", "training", "judging", "publishing", "done"]
Status = Literal["RUNNING", "DONE", "ERROR", "STOPPED", "INTERRUPTED"]


class JobSetup(BaseModel):
    """What does not change while a job runs.

    Attributes:
        order: how to train.
        client: who asked.
        prepared: where the arrays of the site's cases are kept from one job to the next.
        replay: folders of cases that are mixed in.
        reference: the case on which no network may become worse; ``None`` for no such case.
        reference_structures: names of what is scored in it.
    """

    model_config = ConfigDict(frozen=True)

    order: RetrainingOrder
    client: str
    prepared: Path
    replay: tuple[Path, ...]
    reference: Path | None
    reference_structures: tuple[str, ...]


class JobState(BaseModel):
    """Where a job stands.

    Attributes:
        id: its name.
        status: RUNNING until it ends; INTERRUPTED where its process was killed, or the server was.
        stage: what it is at.
        started, ended: seconds since 1970; ``ended`` is ``None`` while it runs.
        trained_s: wall-clock time spent training, interruptions left out.
        step, total_steps, epoch, total_epochs: of the training.
        dice: of the latest validation on held-out cases of the site, by number of clicks.
        curve: (step, mean of ``dice``) of all validations.
        seconds_left: of the training, estimated.
        cases: how many of the site are trained on, and held out.
        message: what happened, for people to read.
        decision: of the gate, once it was asked.
        version: under which number the network was published.
    """

    id: str
    status: Status = "RUNNING"
    stage: Stage = "preparing"
    started: float
    ended: float | None = None
    trained_s: float = 0.0
    step: int = 0
    total_steps: int
    epoch: int = 0
    total_epochs: int
    dice: dict[int, float] = {}
    curve: list[tuple[int, float]] = []
    seconds_left: float | None = None
    cases: tuple[int, int] = (0, 0)
    message: str = ""
    decision: Decision | None = None
    version: int | None = None

    @property
    def best_dice(self) -> float:
        """The best validation so far; 0 before the first."""
        return max((dice for _, dice in self.curve), default=0.0)


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Paths of one job, its setup and its state."""

    path: Path

    @property
    def name(self) -> str:
        """The job's id."""
        return self.path.name

    @property
    def setup_file(self) -> Path:
        """The order."""
        return self.path / "job.json"

    @property
    def state_file(self) -> Path:
        """Where it stands."""
        return self.path / "state.json"

    @property
    def cases_file(self) -> Path:
        """The site's labelled cases."""
        return self.path / "cases.json"

    @property
    def parent_file(self) -> Path:
        """The network that it starts from."""
        return self.path / "parent.safetensors"

    @property
    def candidate_file(self) -> Path:
        """The network that the gate decided about."""
        return self.path / "candidate.safetensors"

    @property
    def log_file(self) -> Path:
        """What the process said."""
        return self.path / "log.txt"

    @property
    def run(self) -> RunFolder:
        """The training run."""
        return RunFolder(self.path / "run")

    def setup(self) -> JobSetup:
        """What the job was asked for.

        Raises:
            TrainingError: it is damaged or missing.
        """
        try:
            return JobSetup.model_validate_json(self._read(self.setup_file))
        except ValueError as error:
            raise self._damaged(self.setup_file) from error

    def state(self) -> JobState:
        """Where the job stands.

        Raises:
            TrainingError: it is damaged or missing.
        """
        try:
            return JobState.model_validate_json(self._read(self.state_file))
        except ValueError as error:
            raise self._damaged(self.state_file) from error

    def check(self) -> None:
        """Look whether the job can be shown and gone on with.

        Raises:
            TrainingError: its setup or its state is damaged or missing.
        """
        self.setup()
        self.state()

    def write_setup(self, setup: JobSetup) -> None:
        """Keep what the job was asked for."""
        replace_file(self.setup_file, io.BytesIO(setup.model_dump_json(indent=1).encode()))

    def write_state(self, state: JobState) -> None:
        """Replace the state; whoever reads sees the old one or the new one."""
        replace_file(self.state_file, io.BytesIO(state.model_dump_json(indent=1).encode()))

    def lock(self) -> FileLock:
        """Held by the process of the job for as long as it lives."""
        return FileLock(self.path / ".lock", timeout=0)

    def is_at_work(self) -> bool:
        """Whether a process of the job lives, whoever started it."""
        try:
            with self.lock():
                return False
        except Timeout:
            return True

    def last_lines(self, count: int) -> list[str]:
        """The end of what the process said."""
        if not self.log_file.is_file():
            return []
        with self.log_file.open("rb") as file:
            file.seek(max(0, self.log_file.stat().st_size - 200 * count))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]

    @staticmethod
    def _damaged(file: Path) -> TrainingError:
        return TrainingError(f"'{file}' is damaged. Remove the folder of that training.")

    def _read(self, file: Path) -> bytes:
        try:
            return file.read_bytes()
        except OSError as error:
            raise TrainingError(
                f"'{file}' cannot be read: {error.strerror}. Restore it, or remove the folder of that training."
            ) from error
