"""One training run: load cases, train until the budget is used up, save, validate, log; go on after a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from deepgrow3d_app import __version__
from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.model.checkpoint import EARLIER_KEY, Checkpoint, lineage, load_weights
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.training.cases import CaseGroup, CasePool, Tell, describe_groups, digest_of, load_group
from deepgrow3d_app.training.log import Progress, TrainingLog
from deepgrow3d_app.training.patch_workers import PatchWorkers, workers_for
from deepgrow3d_app.training.patches import Patches, PatchSource
from deepgrow3d_app.training.plan import TrainingPlan
from deepgrow3d_app.training.ranks import Ranks
from deepgrow3d_app.training.run_folder import VALIDATION_KEY, RunFolder
from deepgrow3d_app.training.trainer import Trainer
from deepgrow3d_app.training.validation import Validation

Report = Callable[[Progress], None]
IsStopped = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run starts from.

    Attributes:
        folders: labelled cases, a data set each: see :func:`~deepgrow3d_app.training.cases.load_group`.
        held_out: cases of a many-case folder that are kept for validation.
        start_from: checkpoint whose weights it starts from; not looked at where a saved state is gone on from.
        resumes: whether to go on with the run that is in the folder.
        command: what the checkpoint says made it.
        validates_first: whether what it starts from is validated too.
        earlier: checkpoint whose answers are kept on the cases of all folders but the first; labels are learnt from
            where ``None``.
        workers: processes that draw patches ahead, for each training process; ``None`` chooses.
    """

    folders: Sequence[Path]
    held_out: int
    start_from: Path | None = None
    resumes: bool = False
    command: str = ""
    validates_first: bool = False
    earlier: Path | None = None
    workers: int | None = None


def run_training(
    request: RunRequest,
    plan: TrainingPlan,
    folder: RunFolder,
    ranks: Ranks,
    report: Report,
    tell: Tell,
    is_stopped: IsStopped = lambda: False,
) -> Trainer:
    """Train on the cases of ``request`` and leave a network in ``folder``.

    Args:
        request: what to start from.
        plan: what is trained, how, and until when.
        folder: of the run; files are written by the first process only, and read by all.
        ranks: this process and the others.
        report: told now and then where training stands.
        tell: told what is wrong with cases that are left out.
        is_stopped: asked by the first process at every step, and at every click of a validation; once true, the run
            is saved and ends, and can be resumed.

    Raises:
        TrainingError: nothing to train on; the loss stays non-finite; the disk is full; the cases are not those of
            the run that is to be resumed.
        InvalidRequest: the folder holds a run that is not to be resumed, or that has another plan.
        CheckpointError: ``start_from`` is missing or damaged, or does not fit the plan.
        Busy: another process trains in the folder.
    """
    with ExitStack() as held:
        with ranks.together():
            ranks.slots(plan.recipe.batch_size)
            if ranks.is_first:
                held.enter_context(folder.locked())
                _open_folder(request, plan, folder)
        with ranks.together():
            state = folder.read_state() if request.resumes else None
        groups = _load_groups(request, plan, folder, ranks, tell)
        known = {"data": describe_groups(groups), "digest": digest_of(groups)}
        with ranks.together():
            if state is not None and {name: state[name] for name in known} != known:
                raise TrainingError(
                    f"The run in '{folder.path}' was trained on other cases: {state['data']}. These are "
                    f"{known['data']}. Name the same folders in the same order, with the same --held-out."
                )
            weights, origin = _start(folder, state)
        source = PatchSource(CasePool(groups, plan.recipe.first_share), plan)
        workers = workers_for(ranks) if request.workers is None else request.workers
        patches: Patches = held.enter_context(PatchWorkers(source, workers)) if workers > 0 else source
        earlier = None if request.earlier is None else Checkpoint.load(request.earlier).weights
        trainer = Trainer(plan, patches, ranks, weights, earlier)
        if state is not None:
            trainer.restore(state)
        with ranks.together():
            if not ranks.agree(trainer.step):
                raise TrainingError(
                    f"Not every process sees the state in '{folder.path}'. Put it on a disk that all share."
                )
        origin = {"command": request.command, "version": __version__, **origin, **known}
        run = _Run(trainer, folder, Validation(groups, plan), origin, known, is_stopped)
        if state is not None:
            run.restore(state)
        run.train(report, validates_first=request.validates_first)
    return trainer


def _open_folder(request: RunRequest, plan: TrainingPlan, folder: RunFolder) -> None:
    """Make the folder ready, and put what the run starts from into it: from then on, it can be resumed."""
    if request.resumes:
        folder.go_on(plan)
        return
    first = None
    if request.start_from is not None:
        parent = Checkpoint.load(request.start_from)
        load_weights(build_network(plan.spec), parent.weights)  # refused before anything is written
        origin = {"command": request.command, EARLIER_KEY: json.dumps(lineage(parent.origin)), "steps": "0"}
        first = Checkpoint(plan.spec, parent.weights, origin)
    folder.begin(plan, first)


def _start(folder: RunFolder, state: dict[str, Any] | None) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
    """Weights to start from, and what is known of the run: of the saved state, or of what ``_open_folder`` left."""
    if state is not None:
        return None, state["origin"]
    if not folder.model_file.is_file():
        return None, {}
    first = Checkpoint.load(folder.model_file)
    return first.weights, first.origin


def _load_groups(
    request: RunRequest, plan: TrainingPlan, folder: RunFolder, ranks: Ranks, tell: Tell
) -> list[CaseGroup]:
    """The cases of all folders; the first process prepares what is not prepared, the others find it done."""
    groups: list[CaseGroup] = []
    for turn in (True, False):
        with ranks.together():
            if ranks.is_first is turn:
                caches = [folder.cases / f"{place}-{path.resolve().name}" for place, path in enumerate(request.folders)]
                groups = [
                    load_group(path, plan.spec, request.held_out, cache, tell, prepares=turn)
                    for path, cache in zip(request.folders, caches, strict=True)
                ]
    return groups


class _Run:
    """The loop around the training step."""

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        validation: Validation,
        origin: dict[str, str],
        known: dict[str, str],
        is_stopped: IsStopped,
    ) -> None:
        self.trainer = trainer
        self.ranks = trainer.ranks
        self.recipe = trainer.plan.recipe
        self.folder = folder
        self.validation = validation
        self.origin = origin
        self.known = known
        self.is_stopped = is_stopped
        self.best = -1.0
        self.validated = -1
        self.saved = -1
        self.started = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`_save` saved; a better network of steps after that is not lost with them."""
        self.best, self.validated, self.saved = state["best"], state["validated"], state["step"]
        if self.ranks.is_first:
            self.best = max(self.best, self.folder.best_validation())
        self.started -= state["elapsed_s"]

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def train(self, report: Report, *, validates_first: bool) -> None:
        """Until the budget is used up, or somebody stops it.

        The state is saved before the first step: a run that is killed at once can be resumed as well.
        """
        try:
            with ExitStack() as held:
                log = held.enter_context(TrainingLog(self.folder, self.trainer.step)) if self.ranks.is_first else None
                if self.saved < 0:
                    self._save()
                if log is not None and self._lacks_a_validation(validates_first):
                    self._report(log, report, validates=True)
                # The first process's clock goes for all: learning rates that differ would part their networks.
                while (done := self.ranks.first(self._done())) < 1.0:
                    if math.isnan(self.trainer.train_step(done)):
                        continue
                    step = self.trainer.step
                    validates = step % self.recipe.validate_every == 0
                    if log is not None and (step % self.recipe.report_every == 0 or validates):
                        self._report(log, report, validates)
                    if step % self.recipe.save_every == 0:
                        self._save()
                if log is not None and self.validated != self.trainer.step and done < math.inf:
                    self._report(log, report, validates=True)
                self._save()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"The GPU has not enough memory for a batch of {self.recipe.batch_size} patches, at step "
                f"{self.trainer.step}. End what else uses it, or start another run with smaller batches (--batch-size)."
            ) from error
        except OSError as error:
            kept = "Nothing was saved" if self.saved < 0 else f"What was saved last, at step {self.saved}, is kept"
            raise TrainingError(
                f"'{self.folder.path}' cannot be written to ({error}), at step {self.trainer.step}. "
                f"{kept}: make room, then go on with --resume."
            ) from error

    def _lacks_a_validation(self, validates_first: bool) -> bool:
        """Whether one is due at this step and was not made: a run that is gone on from was stopped in the middle."""
        step = self.trainer.step
        is_due = validates_first if step == 0 else step % self.recipe.validate_every == 0
        return is_due and self.validated != step

    def _done(self) -> float:
        """The share of the budget that is used up; infinity where the run was stopped."""
        if self.ranks.is_first and self.is_stopped():
            return math.inf
        return self.trainer.plan.budget.done(self.trainer.step, self.elapsed_s)

    def _save(self) -> None:
        state = self.trainer.state()  # by all processes: each knows its own annotators
        if self.ranks.is_first:
            self._write_network(self.folder.model_file)
            mine = {"origin": self.origin, "elapsed_s": self.elapsed_s, "best": self.best, "validated": self.validated}
            self.folder.write_state({**state, **self.known, **mine})
        self.saved = self.trainer.step
        self.ranks.wait()

    def _validate(self) -> dict[int, float] | None:
        if not self.validation.targets:
            self.validated = self.trainer.step
            return None
        scores = self.validation.score(self.trainer.average.weights, self.is_stopped)
        if scores is None:
            return None
        self.validated = self.trainer.step
        if (mean := sum(scores.values()) / len(scores)) > self.best:
            self.best = mean
            self._write_network(self.folder.best_file, {VALIDATION_KEY: repr(mean)})
        return scores

    def _report(self, log: TrainingLog, report: Report, validates: bool) -> None:
        scores = self._validate() if validates else None
        progress = Progress(
            step=self.trainer.step,
            elapsed_s=round(self.elapsed_s, 1),
            done=min(1.0, self.trainer.plan.budget.done(self.trainer.step, self.elapsed_s)),
            loss=self.trainer.recent.mean_loss,
            skipped=self.trainer.skipped_in_all,
            dice=self.trainer.recent.mean_dice,
            learning_rate=self.trainer.optimizer.param_groups[0]["lr"],
            validation=scores,
        )
        # Of a validation that was stopped in the middle, whoever goes on with the run writes the line.
        if not validates or self.validated == self.trainer.step:
            log.write(progress)
        report(progress)

    def _write_network(self, file: Path, more: Mapping[str, str] = MappingProxyType({})) -> None:
        history = {**more, "steps": str(self.trainer.step), "recipe": json.dumps(asdict(self.recipe))}
        Checkpoint(self.trainer.plan.spec, self.trainer.average.weights, {**self.origin, **history}).save(file)
