"""The process of one retraining: prepare what changed, train, judge, leave a decision. Started by the server.

``python -m deepgrow3d_app.retraining.process FOLDER``. It works at the lowest priority, so that clicks go first; it
stops, and saves, when it is told to (SIGTERM), and when its standard input ends: that is held open by the server, which
it must not outlive.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from deepgrow3d_app import PRODUCT
from deepgrow3d_app.cases.layouts.manifest_file import find_manifest_file
from deepgrow3d_app.cases.prepare import prepare_cases
from deepgrow3d_app.errors import DeepGrow3DError, TrainingError
from deepgrow3d_app.model.allocator import keep_freed_memory
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.cores import usable_cores
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.retraining.job import JobFolder, JobSetup, JobState
from deepgrow3d_app.retraining.judging import Court, Target, judge
from deepgrow3d_app.training.cases import CaseGroup, load_group
from deepgrow3d_app.training.log import Progress
from deepgrow3d_app.training.ranks import alone
from deepgrow3d_app.training.run import RunRequest, run_training
from deepgrow3d_app.training.validation import spread_targets

logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.2
JUDGED_STRUCTURES = 40
GRACE_S = 4.0
"""What it has to save what is worth keeping, once it is told to stop."""

LOCK_S = 10.0
"""Whoever looks whether the job is at work holds its lock for a moment."""

IsStopped = Callable[[], bool]


class Retraining:
    """One job, from the saved labels to a decision.

    Args:
        job: its folder, set up.
        is_stopped: asked often; once true, what was done so far is saved, and :meth:`work` returns.
    """

    def __init__(self, job: JobFolder, is_stopped: IsStopped) -> None:
        self._job = job
        self._is_stopped = is_stopped
        self._setup: JobSetup = job.setup()
        self._state: JobState = job.state()

    def work(self) -> None:
        """All of it; where an earlier process was interrupted, what it saved is gone on from.

        Raises:
            DeepGrow3DError: it cannot be done; the message says why.
            OSError: the disk is full.
        """
        parent = Checkpoint.load(self._job.parent_file)
        if not self._job.run.state_file.is_file():
            self._enter(stage="preparing", message="Preparing the labels that changed")
            self._prepare()
        if self._is_stopped():
            return
        site = load_group(self._setup.prepared, parent.spec, 0, self._setup.prepared)
        self._enter(stage="training", cases=(len(site.training), len(site.validation)))
        # Also where all steps were made: it refuses other cases, and repeats a validation that was cut off.
        self._train(parent.spec)
        if self._is_stopped():
            return
        self._enter(stage="judging", seconds_left=None)
        self._judge(parent, site)

    def _prepare(self) -> None:
        sources = find_manifest_file(self._job.cases_file) or []
        if not sources:
            raise TrainingError("No image has a final label. Save labels first ('Submit Label' in 3D Slicer).")

        def show(done: int, total: int, name: str) -> None:
            del name
            self._enter(message=f"Preparing the labels that changed: {done} of {total} looked at")

        # Training knows no names: labels without any are learnt from as well, and one value is one structure.
        sources = [replace(source, names={}) for source in sources]
        report = prepare_cases(sources, self._setup.prepared, None, HELD_OUT_SHARE, progress=show)
        for fault in report.left_out:
            logger.warning("Left out: %s: %s", fault.case, fault.message)
        if not report.manifest.cases:
            raise TrainingError(f"None of the {len(sources)} labels can be used. {report.left_out[0].message}")
        logger.info("%d cases, %d of them new or changed", len(report.manifest.cases), report.new)

    def _train(self, spec: ModelSpec) -> None:
        keep_freed_memory()  # not before: what the preparation of large volumes frees is not needed again
        request = RunRequest(
            folders=[self._setup.prepared, *self._setup.replay],
            held_out=0,
            start_from=self._job.parent_file,
            resumes=self._job.run.has_begun,
            command=f"{PRODUCT} server, training {self._job.name}",
            validates_first=True,
            earlier=self._job.parent_file,
            workers=0,  # the other cores are for clicks, also beside a GPU
        )
        plan = self._setup.order.plan(spec)
        run_training(request, plan, self._job.run, alone(), self._report, logger.info, self._is_stopped)

    def _report(self, progress: Progress) -> None:
        curve, dice, message = self._state.curve, self._state.dice, self._state.message
        epoch = progress.step // self._setup.order.steps_per_epoch
        if progress.validation is not None:
            dice = progress.validation
            curve = [*[point for point in curve if point[0] < progress.step], (progress.step, _mean(dice))]
            scores = ", ".join(f"{value:.3f} at {clicks}" for clicks, value in dice.items())
            message = f"Epoch {epoch} of {self._state.total_epochs}: Dice {scores} clicks, on held-out cases"
            logger.info(message)
        left = None if progress.done <= 0 else progress.elapsed_s * (1 / progress.done - 1)
        self._enter(
            step=progress.step,
            epoch=epoch,
            trained_s=progress.elapsed_s,
            dice=dice,
            curve=curve,
            seconds_left=None if left is None else round(left, 1),
            message=message,
        )

    def _judge(self, parent: Checkpoint, site: CaseGroup) -> None:
        run = self._job.run
        trained = Checkpoint.load(run.best_file if run.best_file.is_file() else run.model_file)
        reference = [] if self._setup.reference is None else self._reference(self._setup.reference, parent.spec)
        court = Court(spread_targets([site], JUDGED_STRUCTURES), reference)
        judged = judge(
            court,
            parent,
            trained,
            is_forced=self._setup.order.force,
            tell=self._tell,
            is_stopped=self._is_stopped,
        )
        if judged is None:
            return
        decision, candidate = judged
        candidate.save(self._job.candidate_file)
        self._enter(stage="publishing" if decision.is_published else "done", decision=decision, message=decision.reason)

    def _reference(self, folder: Path, spec: ModelSpec) -> list[Target]:
        group = load_group(folder, spec, 0, self._setup.prepared.with_name("reference"))
        return [
            (case, structure)
            for case in group.training
            for structure in case.structures
            if case.name_of(structure) in self._setup.reference_structures
        ]

    def _tell(self, line: str) -> None:
        logger.info(line)
        self._enter(message=line)

    def _enter(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)
        self._job.write_state(self._state)


def _mean(dice: dict[int, float]) -> float:
    return sum(dice.values()) / len(dice)


def main(folder: Path) -> int:
    """Work on the job in ``folder``; the exit status is 0 where it came to an end or was stopped."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    stopped = threading.Event()
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # it tells of every name with a space in it
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    threading.Thread(target=_end_with_the_server, args=(stopped,), daemon=True).start()
    _give_way()
    try:
        job = JobFolder(folder)
        with job.lock().acquire(timeout=LOCK_S):
            Retraining(job, stopped.is_set).work()
    except (DeepGrow3DError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 1
    return 0


def _give_way() -> None:
    """Clicks go first: the training runs when a core has nothing else to do."""
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif hasattr(os, "nice"):
        os.nice(19)
    # Linux shares a core among sessions first (sched(7), autogroups), and this process has one of its own.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, usable_cores() // 2))


def _end_with_the_server(stopped: threading.Event) -> None:
    """Stop once nobody holds standard input open any more; for certain after a while, whatever the others do."""
    while os.read(sys.stdin.fileno(), 1 << 10):  # not through Python's buffer, which a thread must not hold at the end
        pass
    logger.info("The server is gone: stopping")
    stopped.set()
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
