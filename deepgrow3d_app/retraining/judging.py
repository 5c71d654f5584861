"""A candidate before the gate: scored beside its parent, and pulled towards it where it forgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deepgrow3d_app.model.checkpoint import EARLIER_KEY, Checkpoint
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.retraining.gate import Decision, Score, Scores, decide
from deepgrow3d_app.training.cases import Structure, TrainingCase
from deepgrow3d_app.training.validation import dice_of

JUDGED_CLICKS = (1, 3, 5)
CANDIDATE_SHARES = (1.0, 0.7, 0.4)
"""A mean of the weights before and after keeps most of what was learnt, and most of what was known (Wortsman et al.,
"Robust fine-tuning of zero-shot models", CVPR 2022). Of those that pass, the best by :func:`_gain` is taken."""

Target = tuple[TrainingCase, Structure]
Tell = Callable[[str], None]
IsStopped = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Court:
    """What networks are judged by.

    Attributes:
        site: structures of the site's held-out cases.
        reference: structures of the reference case.
    """

    site: Sequence[Target]
    reference: Sequence[Target]

    def scores(self, network: Checkpoint, is_stopped: IsStopped) -> Scores | None:
        """Those of ``network``; ``None`` where ``is_stopped`` says so."""
        site = self._score(network, self.site, is_stopped)
        reference = self._score(network, self.reference, is_stopped)
        return None if is_stopped() else Scores(site=site, reference=reference)

    def _score(self, network: Checkpoint, targets: Sequence[Target], is_stopped: IsStopped) -> Score | None:
        if not targets:
            return None
        predictor = Predictor(network.spec, TorchEngine(network.network()))
        rows = [dice_of(predictor, case, structure, JUDGED_CLICKS, is_stopped) for case, structure in targets]
        if is_stopped():
            return None
        mean = np.mean([row for row in rows if row], axis=0).tolist()
        return Score(structures=len(targets), dice=dict(zip(JUDGED_CLICKS, mean, strict=True)))


def judge(
    court: Court, parent: Checkpoint, trained: Checkpoint, *, is_forced: bool, tell: Tell, is_stopped: IsStopped
) -> tuple[Decision, Checkpoint] | None:
    """What becomes of ``trained``, and the candidate that the decision is about.

    Returns:
        ``None`` where ``is_stopped`` says so. Where no share of the trained weights passes, or the order is to publish
        them whatever they are worth, the decision about all of them. Smaller shares are tried where a reference case
        tells what was forgotten, and as long as they are better on the site's cases.
    """
    tell("Judging the network that was served")
    before = court.scores(parent, is_stopped)
    first: tuple[Decision, Checkpoint] | None = None
    best: tuple[Decision, Checkpoint] | None = None
    for share in CANDIDATE_SHARES:
        if before is None:
            return None
        candidate = trained if share == 1 else blended(parent, trained, share)
        after = court.scores(candidate, is_stopped)
        if after is None:
            return None
        decision = decide(before, after, is_forced=is_forced, candidate_share=share)
        tell(f"With {share:.0%} of the trained weights: {decision.reason}")
        first = first or (decision, candidate)
        if decision.is_published and (best is None or _gain(decision) > _gain(best[0])):
            best = (decision, candidate)
        if is_forced or before.reference is None:
            break
        if before.site is None or after.site is None or after.site.mean <= before.site.mean:
            break  # less of it would be no better
    return best or first


def _gain(decision: Decision) -> float:
    """What the site's cases gain, less what the reference case loses, in mean Dice."""
    pairs = [(decision.parent.site, decision.candidate.site), (decision.parent.reference, decision.candidate.reference)]
    return sum(after.mean - before.mean for before, after in pairs if before is not None and after is not None)


def blended(parent: Checkpoint, trained: Checkpoint, share: float) -> Checkpoint:
    """Of each weight, ``share`` from ``trained`` and the rest from ``parent``."""
    weights = {
        name: share * trained.weights[name].float() + (1 - share) * weight.float()
        for name, weight in parent.weights.items()
    }
    remark = {"share": f"{share:.2f} of the trained weights, the rest of those before"}
    origin = {key: text for key, text in trained.origin.items() if key != EARLIER_KEY}
    earlier = {EARLIER_KEY: trained.origin[EARLIER_KEY]} if EARLIER_KEY in trained.origin else {}
    return Checkpoint(trained.spec, weights, {**origin, **remark, **earlier})
