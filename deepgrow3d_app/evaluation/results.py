"""What an evaluation finds out: every click of every structure, as it stands in ``results.json``."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from deepgrow3d_app.errors import UnreadableVolume
from deepgrow3d_app.evaluation.metrics import MaskScores
from deepgrow3d_app.volume.atomic_file import replace_file
from deepgrow3d_app.volume.geometry import Index

FORMAT: Literal["deepgrow3d-evaluation-1"] = "deepgrow3d-evaluation-1"

User = Literal["perfect", "noisy"]


@dataclass(frozen=True, slots=True)
class Round:
    """One click and the answer to it.

    Attributes:
        index: the voxel (i, j, k) clicked, on the stored grid; ``None`` where nothing was left to correct
            and the answer stayed as it was.
        is_positive: foreground or background; ``None`` like ``index``.
        dice, nsd: of the answer, 0 to 1.
        hd95_mm: of the answer; ``None`` where it is infinite, because the answer is empty.
        seconds: that the answer took.
    """

    index: Index | None
    is_positive: bool | None
    dice: float
    nsd: float
    hd95_mm: float | None
    seconds: float

    @classmethod
    def scored(cls, index: Index | None, is_positive: bool | None, scores: MaskScores, seconds: float) -> Round:
        """A round with the scores of its answer."""
        hd95_mm = round(scores.hd95_mm, 3) if math.isfinite(scores.hd95_mm) else None
        return cls(index, is_positive, round(scores.dice, 5), round(scores.nsd, 5), hd95_mm, round(seconds, 4))


@dataclass(frozen=True, slots=True)
class Trial:
    """One structure, annotated with one method by one simulated user.

    Attributes:
        case, structure: what was annotated.
        method: the name of what answered.
        clicks_of: the name of the method whose answers led to the clicks: ``method`` itself, or that of
            another whose clicks were given again.
        user: ``perfect`` clicks exactly; ``noisy`` misses by a Gaussian.
        voxels, volume_ml: size of the structure.
        rounds: one for each click, in order.
        hand: which of the noisy user's hands, from 0 (people are shown 1); each misses in its own way. 0 for the
            perfect user.
    """

    case: str
    structure: str
    method: str
    clicks_of: str
    user: User
    voxels: int
    volume_ml: float
    rounds: tuple[Round, ...]
    hand: int = 0

    @property
    def key(self) -> TrialKey:
        """What tells it from the other trials of its evaluation."""
        return self.case, self.structure, self.method, self.clicks_of, self.user, self.hand


TrialKey = tuple[str, str, str, str, User, int]


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules that all trials of an evaluation followed.

    Attributes:
        click_count: rounds of each trial.
        nsd_tolerance_mm: of the normalised surface Dice.
        noise_mm: how far, per axis, the clicks of the noisy user miss (one standard deviation).
        seed: of the first hand's noise; each further hand has the next one.
        hands: how many noisy users work on each structure, each with a noise of its own: where single clicks
            land decides much on a small structure, and a mean over several hands is steadier.
    """

    click_count: int = 15
    nsd_tolerance_mm: float = 2.0
    noise_mm: float = 4.0
    seed: int = 0
    hands: int = 1


@dataclass(frozen=True, slots=True)
class MethodRecord:
    """What answered the clicks.

    Attributes:
        name: what tables call it.
        details: what identifies it: a checkpoint's digest and origin, a baseline's parameters, a server.
    """

    name: str
    details: dict[str, str]


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """A case that was evaluated: its name; size and time stamp of its two files, and what names its structures have."""

    name: str
    files: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """All that decides what an evaluation finds: two runs of one setting may share their trials.

    Attributes:
        version: of this package, and a digest of its code.
        protocol: the rules.
        methods: in the order that tables show them.
        users: who clicked.
        cases: that were looked at.
        structures: names that were asked for; none for all that the cases have.
    """

    version: str
    protocol: Protocol
    methods: tuple[MethodRecord, ...]
    users: tuple[User, ...]
    cases: tuple[CaseRecord, ...]
    structures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """An evaluation, complete.

    Attributes:
        format: of this file.
        created: date and time (ISO 8601, UTC).
        command: that made it, with names instead of paths.
        data: the name of the folder or file that held the cases.
        machine: what the seconds were measured on.
        setting: what was evaluated, and how.
        trials: all of them.
    """

    format: Literal["deepgrow3d-evaluation-1"]
    created: str
    command: str
    data: str
    machine: str
    setting: Setting
    trials: tuple[Trial, ...]

    def save(self, file: Path) -> None:
        """Write ``file`` (JSON), at once or not at all."""
        content = json.loads(TypeAdapter(Results).dump_json(self))
        trials = content.pop("trials")
        # A line for each click: short enough for a repository, and two files can be compared line by line.
        text = [json.dumps(content, indent=1).removesuffix("\n}"), ',\n "trials": [']
        for number, trial in enumerate(trials):
            rounds = ",\n   ".join(json.dumps(r) for r in trial.pop("rounds"))
            head = json.dumps(trial).removesuffix("}")
            text.append(f'{"," if number else ""}\n  {head}, "rounds": [\n   {rounds}]}}')
        text.append("\n ]\n}\n")
        replace_file(file, io.BytesIO("".join(text).encode()))

    @classmethod
    def load(cls, file: Path) -> Results:
        """Read what :meth:`save` wrote.

        Raises:
            UnreadableVolume: missing, damaged, or of another format.
        """
        try:
            return TypeAdapter(cls).validate_json(file.read_bytes())
        except OSError as error:
            raise UnreadableVolume(
                str(file), f"it cannot be opened ({error.strerror})", "Name the results.json of an evaluation."
            ) from error
        except ValueError as error:
            fault = " ".join(str(error).split())[:200]
            raise UnreadableVolume(
                str(file), f"it is no evaluation of format {FORMAT} ({fault})", "Evaluate again."
            ) from error
