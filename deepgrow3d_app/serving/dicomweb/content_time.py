"""When the content of a segmentation was made: the newest one of a series is its final label."""

from __future__ import annotations

import re
from datetime import datetime

from pydicom import Dataset

DIGITS = 20
"""YYYYMMDDHHMMSS and six of a fraction."""

YEARS = range(1900, 2200)
"""Dates of anonymisers and of broken clocks lie beyond them."""


def made_at(header: Dataset) -> str:
    """Date and time of the content, as ``DIGITS`` digits that sort; "" for those that are no instant, which sort first.

    What a time leaves out is 0.
    """
    date, time = (re.sub(r"\D", "", str(header.get(name) or "")) for name in ("ContentDate", "ContentTime"))
    digits = (date + time).ljust(DIGITS, "0")[:DIGITS]
    return digits if len(date) == len("YYYYMMDD") and instant_of(digits) is not None else ""


def instant_of(digits: str) -> datetime | None:
    """The local time that :func:`made_at` gave; ``None`` where it gave none."""
    try:
        instant = datetime.strptime(digits, "%Y%m%d%H%M%S%f")
    except ValueError:
        return None
    return instant if instant.year in YEARS else None
