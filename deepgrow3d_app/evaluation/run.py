"""One evaluation: every structure of every case, with every method and user; then the files that tell of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

import numpy as np

from deepgrow3d_app import __version__
from deepgrow3d_app.cases.labelled_case import LabelledCase
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import NotFound, UnreadableVolume
from deepgrow3d_app.evaluation.journal import RESULTS, Journal
from deepgrow3d_app.evaluation.metrics import Reference
from deepgrow3d_app.evaluation.picture import WorstPicture, draw_worst, worst_trials
from deepgrow3d_app.evaluation.protocol import Annotator, Method, annotate, given_clicks, noisy_user, perfect_user
from deepgrow3d_app.evaluation.report import write_report
from deepgrow3d_app.evaluation.results import (
    FORMAT,
    CaseRecord,
    Protocol,
    Results,
    Round,
    Setting,
    Trial,
    TrialKey,
    User,
)
from deepgrow3d_app.evaluation.summary import series_of, write_summary
from deepgrow3d_app.model.cores import usable_cores
from deepgrow3d_app.volume.files import read_mask, write_mask
from deepgrow3d_app.volume.geometry import voxel_ml

SUMMARY = "summary.csv"
REPORT = "report.html"
MASKS = "masks"
WORST_COUNT = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """A trial to be done.

    Attributes:
        case, structure: what is annotated.
        user: who clicks.
        method: what answers.
        clicks_of: the name of the method whose answers lead to the clicks.
        hand: which of the user's hands.
    """

    case: str
    structure: str
    user: User
    method: Method
    clicks_of: str
    hand: int = 0

    @property
    def key(self) -> TrialKey:
        """That of the trial."""
        return self.case, self.structure, self.method.record.name, self.clicks_of, self.user, self.hand


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is to be evaluated.

    Attributes:
        sources: the cases.
        methods: each with the clicks that its own answers lead to. Those of the first one, perfect user, are
            also given to all others: neither choice favours one method unseen.
        structures: names; none for all structures of every case.
        users: who clicks.
        protocol: the rules.
        data: what the report calls the cases.
        command: that the report quotes.
    """

    sources: Sequence[CaseSource]
    methods: Sequence[Method]
    structures: tuple[str, ...] = ()
    users: tuple[User, ...] = ("perfect",)
    protocol: Protocol = field(default_factory=Protocol)
    data: str = ""
    command: str = ""

    @property
    def setting(self) -> Setting:
        """All that decides what is found."""
        return Setting(
            version=f"{__version__}+{_code_digest()}",
            protocol=self.protocol,
            methods=tuple(method.record for method in self.methods),
            users=self.users,
            cases=tuple(CaseRecord(source.name, _versions(source)) for source in self.sources),
            structures=self.structures,
        )

    def plans(self, case: LabelledCase) -> list[Plan]:
        """The trials of ``case``, in an order in which clicks are known before they are given again."""
        first, *others = self.methods
        name = first.record.name
        return [
            plan
            for structure in case.structures
            if not self.structures or structure in self.structures
            for user in self.users
            for hand in range(self.protocol.hands if user == "noisy" else 1)
            for plan in (
                Plan(case.name, structure, user, first, name, hand),
                *(Plan(case.name, structure, user, method, method.record.name, hand) for method in others),
                *(Plan(case.name, structure, user, method, name) for method in others if user == "perfect"),
            )
        ]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an evaluation stands.

    Attributes:
        plan: the trial at work.
        clicks: made in it.
        dice: after the latest one.
        share: of the whole evaluation that is done, 0 to 1; cases count equally.
    """

    plan: Plan
    clicks: int
    dice: float
    share: float


def run_evaluation(evaluation: Evaluation, folder: Path, report: Callable[[Progress], None]) -> Results:
    """Evaluate, and write ``results.json``, ``summary.csv``, ``report.html`` and ``masks/`` into ``folder``.

    A run that was killed goes on: finished trials are not done again.

    Args:
        evaluation: what.
        folder: is made where it does not exist.
        report: told after every click where the evaluation stands.

    Raises:
        InvalidInput: a case cannot be read, or ``folder`` holds another evaluation.
        NotFound: a structure is in none of the cases; what was found for the others is written all the same.
        ServerFault: a server is a method, and fails.
    """
    _check_names(evaluation)
    setting = evaluation.setting
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder, setting)
    trials: list[Trial] = []
    for number, source in enumerate(evaluation.sources):
        case = source.load()
        plans = evaluation.plans(case)
        for position, plan in enumerate(plans):
            if plan.key not in journal.trials:
                for clicks, round_ in enumerate(_conduct(evaluation, plan, case, journal, folder), start=1):
                    done = (position + clicks / evaluation.protocol.click_count) / len(plans)
                    report(Progress(plan, clicks, round_.dice, (number + done) / len(evaluation.sources)))
            trials.append(journal.trials[plan.key])
    absent = sorted(set(evaluation.structures) - {trial.structure for trial in trials})
    if not trials:
        raise _no_voxels(absent)
    results = Results(
        format=FORMAT,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=evaluation.command,
        data=evaluation.data,
        machine=_machine(),
        setting=setting,
        trials=tuple(trials),
    )
    results.save(folder / RESULTS)
    journal.close()
    write_summary(results, folder / SUMMARY)
    write_report(results, _worst_pictures(results, evaluation.sources, folder), folder / REPORT)
    if absent:  # said at the end: what was found for the others is not lost
        raise _no_voxels(absent)
    return results


def _conduct(evaluation: Evaluation, plan: Plan, case: LabelledCase, journal: Journal, folder: Path) -> Iterator[Round]:
    """Do one trial, round by round, and add it to the journal."""
    protocol = evaluation.protocol
    truth = case.truth(plan.structure)
    reference = Reference(truth, case.volume.spacing_mm, protocol.nsd_tolerance_mm)
    rounds = []
    answer = np.zeros(case.volume.shape, np.uint8)
    next_click = _annotator(plan, case, protocol, journal)
    for round_, mask in annotate(plan.method, case.volume, reference, next_click, protocol.click_count):
        answer = mask
        rounds.append(round_)
        yield round_
    voxels = int(truth.sum())
    trial = Trial(
        case=plan.case,
        structure=plan.structure,
        method=plan.method.record.name,
        clicks_of=plan.clicks_of,
        user=plan.user,
        voxels=voxels,
        volume_ml=round(voxels * voxel_ml(case.volume.affine), 4),
        rounds=tuple(rounds),
        hand=plan.hand,
    )
    if plan.method is evaluation.methods[0]:
        file = _mask_file(folder, trial)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_mask(answer, case.volume.affine, file)
    journal.add(trial)


def _annotator(plan: Plan, case: LabelledCase, protocol: Protocol, journal: Journal) -> Annotator:
    if plan.clicks_of != plan.method.record.name:
        own = journal.trials[plan.case, plan.structure, plan.clicks_of, plan.clicks_of, plan.user, plan.hand]
        return given_clicks(own.rounds)
    if plan.user == "perfect":
        return perfect_user(case.volume)
    # The same hand for every method: what differs between them is not luck.
    hand = np.random.default_rng([protocol.seed + plan.hand, crc32(f"{plan.case}/{plan.structure}".encode())])
    return noisy_user(case.volume, protocol.noise_mm, hand)


def _mask_file(folder: Path, trial: Trial) -> Path:
    """Where the last mask of a trial lies; names are quoted, for they come from files of anybody."""
    who = trial.user if trial.hand == 0 else f"{trial.user}-{trial.hand + 1}"
    return folder / MASKS / quote(trial.case, safe=" ") / f"{quote(trial.structure, safe=' ')}-{who}.nii.gz"


def _worst_pictures(results: Results, sources: Sequence[CaseSource], folder: Path) -> list[WorstPicture]:
    """The worst trials of the first method, each as it ended."""
    source_of = {source.name: source for source in sources}
    pictures = []
    for trial in worst_trials(series_of(results)[0], WORST_COUNT):
        file = _mask_file(folder, trial)
        if not file.exists():  # somebody tidied up between two runs
            continue
        case = source_of[trial.case].load()
        mask, _ = read_mask(file)
        pictures.append(draw_worst(case.volume, case.truth(trial.structure), mask, trial))
    return pictures


def _check_names(evaluation: Evaluation) -> None:
    """Refuse at once a structure that no case can have; whether it has voxels is seen when a case is read."""
    if all(source.names for source in evaluation.sources):
        known = dict.fromkeys(name for source in evaluation.sources for name in source.names)
        unknown = [name for name in evaluation.structures if name not in known]
        if unknown:
            raise NotFound(
                f"There is no structure {', '.join(map(repr, unknown))} in the cases. They have: {', '.join(known)}."
            )


def _no_voxels(absent: Sequence[str]) -> NotFound:
    if absent:
        return NotFound(f"{', '.join(map(repr, absent))} has no voxel in any of the cases. The others are written.")
    return NotFound("The labels of the cases are 0 everywhere: there is nothing to evaluate. Choose other cases.")


def _versions(source: CaseSource) -> tuple[tuple[int, int], ...]:
    """Size and time stamp of the two files of a case, number and digest of its names: another case once they change."""
    stats = [_status(file, source) for file in (source.image, source.labels)]
    names = sorted(source.names.items())
    return (*((stat.st_size, stat.st_mtime_ns) for stat in stats), (len(names), crc32(repr(names).encode())))


def _status(file: Path, source: CaseSource) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise UnreadableVolume(
            file.name,
            f"the case '{source.name}' needs it, and it cannot be opened ({error.strerror})",
            "Add the file, check its permissions, or leave the case out.",
        ) from error


def _code_digest() -> str:
    """Other code may find something else: trials of an earlier state of it are not passed off as today's."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _machine() -> str:
    """Processor and number of cores that may be used, as far as the system tells."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return f"{processor}, {usable_cores()} cores"
