"""Whether a candidate takes the place of the served network: decided by scores, explained in words."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

REFERENCE_TOLERANCE = 0.01
"""By how much the mean Dice on the reference case may fall, at any number of clicks."""


class Score(BaseModel):
    """How well a network does on some structures, with the perfect user's clicks.

    Attributes:
        structures: how many were clicked.
        dice: mean Dice, by number of clicks.
    """

    model_config = ConfigDict(frozen=True)

    structures: int
    dice: dict[int, float]

    @property
    def mean(self) -> float:
        """Over the numbers of clicks."""
        return sum(self.dice.values()) / len(self.dice)


class Scores(BaseModel):
    """Those of one network.

    Attributes:
        site: on held-out cases of the site; ``None`` where there are none.
        reference: on the reference case; ``None`` where there is none.
    """

    model_config = ConfigDict(frozen=True)

    site: Score | None
    reference: Score | None


class Decision(BaseModel):
    """What the gate says.

    Attributes:
        is_published: whether the candidate takes the place of its parent.
        reason: why, in words.
        parent, candidate: their scores.
        candidate_share: how much of the trained weights is in the candidate; the rest is its parent's.
    """

    model_config = ConfigDict(frozen=True)

    is_published: bool
    reason: str
    parent: Scores
    candidate: Scores
    candidate_share: float = 1.0


def decide(parent: Scores, candidate: Scores, *, is_forced: bool, candidate_share: float = 1.0) -> Decision:
    """Publish what is better on the site's held-out cases, and no worse on the reference case.

    Args:
        parent, candidate: scores on the same structures.
        is_forced: publish it all the same; the reason says what would have kept it.
        candidate_share: see :class:`Decision`.
    """
    faults = []
    if parent.site is None or candidate.site is None:
        faults.append(
            "there is no held-out case of these studies to judge it by: label at least two patients, or force it"
        )
    elif not candidate.site.mean > parent.site.mean:
        faults.append(f"it is not better on held-out cases of these studies ({_change(parent.site, candidate.site)})")
    if parent.reference is not None and candidate.reference is not None:
        after = candidate.reference.dice
        lost, clicks = max((dice - after[clicks], clicks) for clicks, dice in parent.reference.dice.items())
        if lost > REFERENCE_TOLERANCE:
            faults.append(
                f"it is worse on the reference case by {lost:.3f} at {clicks} clicks, and may be by "
                f"{REFERENCE_TOLERANCE} ({_change(parent.reference, candidate.reference)})"
            )
    if not faults:
        assert parent.site is not None and candidate.site is not None  # noqa: S101, PT018 - else there was a fault
        reason = f"Published: better on held-out cases of these studies ({_change(parent.site, candidate.site)})"
        if parent.reference is not None and candidate.reference is not None:
            reason += f", and no worse on the reference case ({_change(parent.reference, candidate.reference)})"
    elif is_forced:
        reason = f"Published because it was forced, although {'; and '.join(faults)}"
    else:
        reason = f"Not published: {'; and '.join(faults)}"
    return Decision(
        is_published=not faults or is_forced,
        reason=f"{reason}.",
        parent=parent,
        candidate=candidate,
        candidate_share=candidate_share,
    )


def _change(before: Score, after: Score) -> str:
    clicks = ", ".join(map(str, before.dice))
    return f"mean Dice over clicks {clicks}: {before.mean:.3f} before, {after.mean:.3f} now"
