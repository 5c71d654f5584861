"""The thread that attends to one training: lists its cases, waits for its process, publishes what it leaves."""

from __future__ import annotations

import io
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence

from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import CheckpointError, DeepGrow3DError, Superseded, TrainingError
from deepgrow3d_app.model.checkpoint import Checkpoint, lineage
from deepgrow3d_app.retraining.job import JobFolder, JobState
from deepgrow3d_app.retraining.versions import VersionRecord, sha256_of
from deepgrow3d_app.serving.attendance import Attendance
from deepgrow3d_app.serving.labelled_cases import write_cases
from deepgrow3d_app.serving.served_model import ServedModel
from deepgrow3d_app.serving.training.job_process import JobProcess
from deepgrow3d_app.volume.atomic_file import replace_file

logger = logging.getLogger(__name__)


class Attendant:
    """The thread that attends to one job: lists its cases, waits for its process, publishes what it leaves."""

    def __init__(
        self,
        job: JobFolder,
        attendance: Attendance,
        model: ServedModel,
        cases: Callable[[], Sequence[CaseSource]] | None,
        state: JobState,
    ) -> None:
        self.job = job
        self._attendance = attendance
        self._model = model
        self._cases = cases
        self._stage = state.stage
        self._process: JobProcess | None = None
        self._stopped = threading.Event()
        self._reason = ""
        self.thread = threading.Thread(target=self._attend, name=f"training-{job.name}", daemon=True)

    def stop(self, reason: str = "") -> None:
        """End the process; ``reason`` where it was nobody's wish, and the job counts as interrupted."""
        self._reason = reason
        self._stopped.set()
        if self._process is not None:
            self._process.stop()

    def _attend(self) -> None:
        try:
            if self._stage == "publishing":
                self._publish(self.job.state())
            elif self._prepare():
                self._run()
        except (DeepGrow3DError, OSError) as error:
            self._end("ERROR", str(error))
            logger.error("Training %s failed: %s", self.job.name, error)  # noqa: TRY400 - the message says it all
        except Exception:
            self._end("ERROR", "It failed, and the server's log says where.")
            logger.exception("Training %s failed", self.job.name)
        finally:
            self._attendance.end()

    def _prepare(self) -> bool:
        """List the cases; whether there is something to run."""
        if self._cases is not None:
            cases = self._cases()
            if self._stopped.is_set():
                self._end_stopped()
                return False
            write_cases(cases, self.job.cases_file)
        return True

    def _run(self) -> None:
        self._process = JobProcess(self.job)
        if self._stopped.is_set():  # while it was started
            self._process.stop()
        status = self._process.wait()
        state = self.job.state()
        if self._stopped.is_set() and state.stage not in ("publishing", "done"):
            self._end_stopped()
        elif status != 0 or state.stage not in ("publishing", "done"):
            lines = self.job.last_lines(1)
            self._end("ERROR", lines[0].partition(" ")[2] if lines else f"Its process ended with status {status}.")
        elif state.stage == "publishing":
            self._publish(state)
        else:
            self._end("DONE", state.message)

    def _publish(self, state: JobState) -> None:
        setup = self.job.setup()
        record = VersionRecord(
            made_by="training",
            job=self.job.name,
            data=_data_of(self.job),
            duration_s=round(state.trained_s, 1),
            decision=state.decision,
            client=setup.client,
        )
        try:
            version = self._model.publish(self.job.candidate_file, record, sha256_of(self.job.parent_file))
        except Superseded as error:
            self._end("DONE", f"Not published. {error}", stage="done")
            return
        except CheckpointError as error:
            self._end("ERROR", f"The candidate cannot be served: {error}")
            return
        logger.info("Version %d is served: %s", version.number, state.message)
        self._end("DONE", state.message, stage="done", version=version.number)

    def _end_stopped(self) -> None:
        state = self.job.state()
        at = f"at step {state.step} of {state.total_steps}" if state.step else f"while {state.stage}"
        if self._reason:
            self._end("INTERRUPTED", f"{self._reason}: interrupted {at}. It can be resumed.")
        else:
            self._end("STOPPED", f"Stopped {at}. It can be resumed.")

    def _end(self, status: str, message: str, **changes: object) -> None:
        update = {"status": status, "message": message, "ended": time.time(), "seconds_left": None, **changes}
        try:
            state = self.job.state().model_copy(update=update)
            self.job.write_state(state)
            if status == "DONE":  # nothing can be resumed any more, and it is the largest file
                self.job.run.state_file.unlink(missing_ok=True)
                shutil.rmtree(self.job.run.cases, ignore_errors=True)
            replace_file(self.job.path / "report.json", io.BytesIO(state.model_dump_json(indent=1).encode()))
        except (TrainingError, OSError) as error:
            logger.error("Training %s: its end cannot be written: %s", self.job.name, error)  # noqa: TRY400


def _data_of(job: JobFolder) -> dict[str, str]:
    """What the candidate was trained on last, with the digest of its cases."""
    last = lineage(Checkpoint.load(job.candidate_file).origin)[-1]
    return {name: last[name] for name in ("data", "digest", "command") if name in last}
