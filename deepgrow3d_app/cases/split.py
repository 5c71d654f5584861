"""Which patients are kept for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def validation_patients(patients: Iterable[str], share: float, seed: int) -> frozenset[str]:
    """The patients whose cases are not trained on: about ``share`` of them, drawn by ``seed``.

    Each patient's side is drawn from a digest of its name, not from its place in a list, so that it does not
    depend on order, and so that patients who are added later move nobody from training to validation: a network
    that is trained on from an earlier one is never judged on what that one has seen. The price is that the share
    holds on average only. Of two or more patients, at least one is on either side (with a positive share); who is
    there for want of others, as a single patient in training is, may change sides when they come.

    Args:
        patients: their names, repeated or not.
        share: from 0 to below 1.
        seed: another one draws others.
    """
    if share <= 0:
        return frozenset()
    ranked = sorted((_draw(patient, seed), patient) for patient in set(patients))
    n_validation = sum(drawn < share for drawn, _ in ranked)
    n_validation = min(max(n_validation, 1), len(ranked) - 1)
    return frozenset(patient for _, patient in ranked[: max(n_validation, 0)])


def _draw(patient: str, seed: int) -> float:
    """A number from 0 to below 1 that looks random, the same on every machine."""
    named = f"{seed}:{patient}".encode(errors="surrogateescape")  # it may be a file's name in another encoding
    digest = hashlib.sha256(named).digest()
    return int.from_bytes(digest[:7]) / 2**56
