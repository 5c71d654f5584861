"""One training run: load cases, train until the budget is used up, save, validate, log; go on after a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from deepgrow3d_app import __version__
from deepgrow3d_app.errors import InvalidRequest, TrainingError
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.training.cases import CaseGroup, CasePool, Tell, describe_groups, load_group
from deepgrow3d_app.training.log import Progress, TrainingLog
from deepgrow3d_app.training.patches import PatchSource
from deepgrow3d_app.training.plan import TrainingPlan
from deepgrow3d_app.training.ranks import Ranks
from deepgrow3d_app.training.run_folder import RunFolder
from deepgrow3d_app.training.trainer import Trainer
from deepgrow3d_app.training.validation import Validation

REPORT_STEPS = 20

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """When a run ends: at the first of its bounds.

    Attributes:
        steps: gradient steps.
        minutes: wall-clock time. The learning rate then follows the clock, so that no two runs are the same to
            the last digit; with steps alone they are.

    Raises:
        InvalidRequest: neither, or one that is not positive.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InvalidRequest("Nothing says when training ends. Give a number of steps, of minutes, or both.")
        for value, unit in ((self.steps, "steps"), (self.minutes, "minutes")):
            if value is not None and value <= 0:
                raise InvalidRequest(f"Training cannot end after {value} {unit}. Choose a positive number.")

    def done(self, step: int, elapsed_s: float) -> float:
        """The share that is used up; 1 at the end."""
        by_steps = 0.0 if self.steps is None else step / self.steps
        by_time = 0.0 if self.minutes is None else elapsed_s / (60 * self.minutes)
        return max(by_steps, by_time)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is to do.

    Attributes:
        folders: labelled cases, a data set each: see :func:`~deepgrow3d_app.training.cases.load_group`.
        held_out: cases of a many-case folder that are kept for validation.
        budget: when it ends.
        start_from: checkpoint whose weights it starts from.
        resumes: whether to go on with the run that is in the folder.
        command: what the checkpoint says made it.
    """

    folders: Sequence[Path]
    held_out: int
    budget: Budget
    start_from: Path | None = None
    resumes: bool = False
    command: str = ""


def run_training(
    request: RunRequest, plan: TrainingPlan, folder: RunFolder, ranks: Ranks, report: Report, tell: Tell
) -> Trainer:
    """Train on the cases of ``request`` and leave a network in ``folder``.

    Args:
        request: what to do.
        plan: what is trained, and how.
        folder: of the run; files are written by the first process only.
        ranks: this process and the others.
        report: told every ``REPORT_STEPS`` steps where training stands.
        tell: told what is wrong with cases that are left out.

    Raises:
        TrainingError: nothing to train on; the loss stays non-finite; the disk is full; the cases are not those of
            the run that is to be resumed.
        InvalidRequest: the folder holds a run that is not to be resumed.
        CheckpointError: ``start_from`` is missing or damaged, or does not fit the plan.
        Busy: another process trains in the folder.
    """
    with ExitStack() as held:
        state = None
        if ranks.is_first:
            held.enter_context(folder.locked())
            if request.resumes:
                folder.plan()
            else:
                folder.begin(plan)
        ranks.wait()
        if request.resumes:
            state = folder.read_state()
        groups = _load_groups(request, plan, folder, ranks, tell)
        data = describe_groups(groups)
        if state is not None and state["data"] != data:
            raise TrainingError(
                f"The run in '{folder.path}' was trained on {state['data']}, these cases are {data}. "
                "Name the same folders, in the same order."
            )
        weights, parent = _parent(request.start_from)
        trainer = Trainer(plan, PatchSource(CasePool(groups), plan), ranks, weights)
        elapsed_s = 0.0
        if state is not None:
            trainer.restore(state)
            elapsed_s = float(state["elapsed_s"])
        origin = {**parent, "command": request.command, "data": data, "version": __version__}
        if state is not None:
            origin = state["origin"]  # that of the command which began the run
        run = _Run(trainer, request.budget, folder, Validation(groups, plan), origin, elapsed_s)
        if state is not None:
            run.best = float(state["best"])
        run.train(report)
    return trainer


def _load_groups(
    request: RunRequest, plan: TrainingPlan, folder: RunFolder, ranks: Ranks, tell: Tell
) -> list[CaseGroup]:
    """The cases of all folders; the first process prepares what is not prepared, the others find it done."""
    groups: list[CaseGroup] = []
    for turn in (True, False):
        if ranks.is_first is turn:
            caches = [folder.cases / f"{place}-{path.resolve().name}" for place, path in enumerate(request.folders)]
            groups = [
                load_group(path, plan.spec, request.held_out, cache, tell, prepares=turn)
                for path, cache in zip(request.folders, caches, strict=True)
            ]
        ranks.wait()
    return groups


def _parent(start_from: Path | None) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
    if start_from is None:
        return None, {}
    checkpoint = Checkpoint.load(start_from)
    return checkpoint.weights, {"started_from": json.dumps(checkpoint.origin)}


class _Run:
    """The loop around the training step."""

    def __init__(
        self,
        trainer: Trainer,
        budget: Budget,
        folder: RunFolder,
        validation: Validation,
        origin: dict[str, str],
        elapsed_s: float,
    ) -> None:
        self.trainer = trainer
        self.budget = budget
        self.folder = folder
        self.validation = validation
        self.origin = origin
        self.best = -1.0
        self.validated = -1
        self.started = time.monotonic() - elapsed_s
        self.is_first = trainer.ranks.is_first

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def train(self, report: Report) -> None:
        """Until the budget is used up, or the user interrupts.

        The state is saved before the first step: a run that is killed at once can be resumed as well.
        """
        recipe = self.trainer.plan.recipe
        saved = self.trainer.step
        try:
            with ExitStack() as held:
                log = held.enter_context(TrainingLog(self.folder, saved)) if self.is_first else None
                self._save()
                while not self.trainer.ranks.any(self._done() >= 1.0):
                    if math.isnan(self.trainer.train_step(self._done())):
                        continue
                    step = self.trainer.step
                    if log is not None and (step % REPORT_STEPS == 0 or step % recipe.validate_every == 0):
                        self._report(log, report, validates=step % recipe.validate_every == 0)
                    if step % recipe.save_every == 0:
                        self._save()
                        saved = step
                if log is not None and self.validated != self.trainer.step:
                    self._report(log, report, validates=True)
                self._save()
        except OSError as error:
            raise TrainingError(
                f"'{self.folder.path}' cannot be written to ({error}), at step {self.trainer.step}. "
                f"What was saved last, at step {saved}, is kept: make room, then go on with --resume."
            ) from error

    def _done(self) -> float:
        return self.budget.done(self.trainer.step, self.elapsed_s)

    def _save(self) -> None:
        state = self.trainer.state()  # by all processes: each knows its own annotators
        if self.is_first:
            self._write_network(self.folder.model_file)
            extra = {"data": self.origin["data"], "origin": self.origin, "elapsed_s": self.elapsed_s, "best": self.best}
            self.folder.write_state({**state, **extra})
        self.trainer.ranks.wait()

    def _validate(self) -> dict[int, float] | None:
        self.validated = self.trainer.step
        if not self.validation.targets:
            return None
        scores = self.validation.score(self.trainer.average.weights)
        if (mean := sum(scores.values()) / len(scores)) > self.best:
            self.best = mean
            self._write_network(self.folder.best_file)
        return scores

    def _report(self, log: TrainingLog, report: Report, validates: bool) -> None:
        scores = self._validate() if validates else None
        recent = self.trainer.recent
        rate = self.trainer.optimizer.param_groups[0]["lr"]
        elapsed_s, done = round(self.elapsed_s, 1), min(1.0, self._done())
        progress = Progress(self.trainer.step, elapsed_s, done, recent.mean_loss, recent.mean_dice, rate, scores)
        log.write(progress)
        report(progress)

    def _write_network(self, file: Path) -> None:
        history = {"steps": str(self.trainer.step), "recipe": json.dumps(asdict(self.trainer.plan.recipe))}
        Checkpoint(self.trainer.plan.spec, self.trainer.average.weights, {**self.origin, **history}).save(file)
