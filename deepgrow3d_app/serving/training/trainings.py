"""One training at a time: what viewers start, see and stop at ``/train``."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import Busy, InvalidRequest, NotFound, TrainingError
from deepgrow3d_app.retraining.job import JobFolder, JobSetup, JobState
from deepgrow3d_app.retraining.once_log import OnceLog
from deepgrow3d_app.retraining.order import RetrainingOrder
from deepgrow3d_app.serving.attendance import Attendance
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.served_model import ServedModel
from deepgrow3d_app.serving.training.attendant import Attendant
from deepgrow3d_app.serving.training.job_process import STOP_S
from deepgrow3d_app.volume.atomic_file import replace_file

logger = logging.getLogger(__name__)

KEPT_JOBS = 20
RESUMABLE = ("INTERRUPTED", "STOPPED", "ERROR")


@dataclass(frozen=True, slots=True)
class TrainingPlaces:
    """Where trainings take what they need from.

    Attributes:
        folder: for jobs and prepared cases; ``None`` where nothing may be written.
        replay: folders of cases that are mixed in.
        reference: the case on which no network may become worse.
        reference_structures: what is scored in it.
    """

    folder: Path | None
    replay: tuple[Path, ...]
    reference: Path | None
    reference_structures: tuple[str, ...]


class Trainings:
    """The trainings of these studies; thread-safe. Several servers on the same studies see the same ones.

    Args:
        places: where things lie.
        model: what is trained on from, and where a better network is published.
        cases: lists the labelled cases, which may take a while.
    """

    def __init__(self, places: TrainingPlaces, model: ServedModel, cases: Callable[[], Sequence[CaseSource]]) -> None:
        self._places = places
        self._model = model
        self._cases = cases
        self._lock = threading.Lock()
        self._work: Attendant | None = None
        self._log = OnceLog(logger)

    @property
    def is_read_only(self) -> bool:
        """Whether nothing may be written, and so nothing be trained."""
        return self._places.folder is None

    def start(self, order: RetrainingOrder, client: str) -> JobState:
        """Begin a training of the labels that are saved now.

        Raises:
            InvalidRequest: the server may not write anything.
            Busy: a training runs already.
        """
        with self._beginning() as root:
            self._refuse_second()
            with ExitStack() as undo:
                path = _new_folder(root)
                undo.callback(shutil.rmtree, path, ignore_errors=True)
                attendance = _attended(path, undo)
                job = self._set_up(path, order, client)
                self._begin(job, attendance, job.state(), needs_cases=True)
                undo.pop_all()
            self._remove_oldest()
        return job.state()

    def resume(self, job_id: str | None) -> JobState:
        """Go on with a training that was interrupted or stopped; ``None`` for the latest.

        Raises:
            NotFound: there is no such training.
            TrainingError: its records are damaged.
            InvalidRequest: it came to an end.
            Busy: a training runs already.
        """
        self._root()
        self._named(job_id)  # refused before anything is written
        with self._beginning():
            self._refuse_second()
            job = self._named(job_id)
            state = self._seen(job)
            if state.status not in RESUMABLE:
                raise InvalidRequest(f"Training {state.id} is {state.status}: there is nothing to go on with.")
            with ExitStack() as undo:
                attendance = _attended(job.path, undo)
                state = state.model_copy(update={"status": "RUNNING", "ended": None, "message": "Going on"})
                job.write_state(state)
                # Before anything was learnt, the labels are those of now.
                self._begin(job, attendance, state, needs_cases=not job.run.state_file.is_file())
                undo.pop_all()
        return state

    def stop(self) -> JobState:
        """Stop the training that runs, within 5 seconds; it can be resumed.

        Raises:
            NotFound: none is running.
            Busy: another server runs one, and only that one can stop it.
        """
        with self._lock:  # one that this server begins just now has begun
            work = self._work
        if work is None or not work.thread.is_alive():
            self._refuse_second()
            raise NotFound("No training is running.")
        work.stop()
        work.thread.join(STOP_S + 0.4)
        return work.job.state()

    def latest(self) -> JobState | None:
        """The training that runs, or else the last one that was started, or ``None``."""
        states = self.all()
        running = [state for state in states if state.status == "RUNNING"]  # an earlier one may be gone on with
        shown = running or states
        return shown[-1] if shown else None

    def running(self) -> JobState | None:
        """The training that runs, here or through another server, or ``None``."""
        state = self.latest()
        return state if state is not None and state.status == "RUNNING" else None

    def all(self) -> list[JobState]:
        """The trainings that are remembered, oldest first; without those whose records are damaged."""
        return [self._seen(job) for job in self._jobs()]

    def details(self, state: JobState, count: int = 20) -> list[str]:
        """The last lines of what the process of a training said."""
        return JobFolder(self._root() / state.id).last_lines(count)

    def order(self, state: JobState) -> RetrainingOrder:
        """What a training was asked for."""
        return JobFolder(self._root() / state.id).setup().order

    def recover(self) -> None:
        """After a start of the server: finish a publication in which the last one was killed, note interruptions."""
        for job in self._jobs():
            state = self._seen(job)
            if state.status == "INTERRUPTED" and state.stage == "publishing":
                logger.info("Training %s was decided, but not published: doing it now", state.id)
                with self._beginning(), ExitStack() as undo:
                    attendance = _attended(job.path, undo)
                    state = state.model_copy(update={"status": "RUNNING"})
                    job.write_state(state)
                    self._begin(job, attendance, state, needs_cases=False)
                    undo.pop_all()
            elif state.status == "INTERRUPTED":
                logger.info("Training %s: %s", state.id, state.message)

    def close(self) -> None:
        """The server ends: the training is saved and ends too."""
        work = self._work
        if work is not None and work.thread.is_alive():
            work.stop(reason="The server was stopped")
            work.thread.join(STOP_S + 0.5)

    @contextmanager
    def _beginning(self) -> Iterator[Path]:
        """The folder of the jobs, while no other thread and no other server begins one."""
        root = self._root()
        root.mkdir(parents=True, exist_ok=True)
        with self._lock, FileLock(root / ".beginning"):
            yield root

    def _root(self) -> Path:
        if self._places.folder is None:
            raise InvalidRequest(
                "The studies are read-only, and nothing can be trained. Give the server a DEEPGROW3D_CACHE_FOLDER."
            )
        return self._places.folder / "jobs"

    def _jobs(self) -> list[JobFolder]:
        """Those that can be read. A damaged one takes nothing from the others; the log says once what is wrong."""
        return [job for job in self._folders() if self._is_readable(job)]

    def _is_readable(self, job: JobFolder) -> bool:
        try:
            job.check()
        except TrainingError as error:
            self._log.warn(f"Training {job.name} is passed over: {error}")
            return False
        return True

    def _folders(self) -> list[JobFolder]:
        if self._places.folder is None:
            return []
        folder = self._places.folder / "jobs"
        names = sorted(path.name for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []
        return [JobFolder(folder / name) for name in names if (folder / name / "state.json").is_file()]

    def _named(self, job_id: str | None) -> JobFolder:
        if job_id is None and (readable := self._jobs()):
            return readable[-1]
        jobs = {job.name: job for job in self._folders()}
        if job_id is None or not jobs:
            raise NotFound("There is no training to go on with. Start one.")
        if job_id not in jobs:
            raise NotFound(f"There is no training {shown(job_id)}. There are {', '.join(jobs)}.")
        jobs[job_id].check()
        return jobs[job_id]

    def _seen(self, job: JobFolder) -> JobState:
        """The state of ``job``, corrected where whoever ran it was killed."""
        state = job.state()
        if state.status == "RUNNING" and not Attendance(job.path).is_held() and not job.is_at_work():
            state = job.state()  # it may have come to an end in between
            if state.status == "RUNNING":
                at = f"at step {state.step} of {state.total_steps}" if state.step else f"while {state.stage}"
                message = f"Interrupted {at}: the server was killed. It can be resumed."
                update = {"status": "INTERRUPTED", "ended": time.time(), "message": message}
                state = state.model_copy(update=update)
                job.write_state(state)
        return state

    def _refuse_second(self) -> None:
        running = self.running()
        if running is not None:
            work = self._work
            if work is not None and work.thread.is_alive() and work.job.name == running.id:
                where, remedy = "", "stop it (DELETE /train/)"
            else:
                where, remedy = " in another server on these studies", "stop it there (DELETE /train/ at that server)"
            raise Busy(
                f"Training {running.id} is running{where} ({running.message or running.stage}). "
                f"Wait until it has ended, or {remedy}.",
                retry_after_s=max(1, round(running.seconds_left or 10)),
            )

    def _set_up(self, path: Path, order: RetrainingOrder, client: str) -> JobFolder:
        assert self._places.folder is not None  # noqa: S101 - _root refused
        job = JobFolder(path)
        with self._model.path.open("rb") as served:
            replace_file(job.parent_file, served)
        job.write_setup(
            JobSetup(
                order=order,
                client=client,
                prepared=self._places.folder / "cases",
                replay=self._places.replay,
                reference=self._places.reference,
                reference_structures=self._places.reference_structures,
            )
        )
        steps = order.max_epochs * order.steps_per_epoch
        job.write_state(JobState(id=job.name, started=time.time(), total_steps=steps, total_epochs=order.max_epochs))
        return job

    def _begin(self, job: JobFolder, attendance: Attendance, state: JobState, *, needs_cases: bool) -> None:
        self._work = Attendant(job, attendance, self._model, self._cases if needs_cases else None, state)
        self._work.thread.start()

    def _remove_oldest(self) -> None:
        for job in self._jobs()[:-KEPT_JOBS]:
            if self._seen(job).status != "RUNNING":
                shutil.rmtree(job.path, ignore_errors=True)


def _new_folder(root: Path) -> Path:
    """A folder for the next job. One without a state, of a start that was killed, keeps its number."""
    taken = [int(path.name) for path in root.iterdir() if path.name.isdigit()]
    path = root / f"{1 + max(taken, default=0):04d}"
    path.mkdir()
    return path


def _attended(path: Path, undo: ExitStack) -> Attendance:
    """This server works on the job in ``path``, before anybody can see that it runs, until ``undo`` is called."""
    attendance = Attendance(path)
    attendance.begin()
    undo.callback(attendance.end)
    return attendance
