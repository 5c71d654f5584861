"""A training as viewers and scripts are shown it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from deepgrow3d_app.retraining.job import JobState
from deepgrow3d_app.serving.training.trainings import Trainings


def shown_training(trainings: Trainings, state: JobState) -> dict[str, Any]:
    """``id, status, request, start_ts, details[]`` as MONAI Label has them, and all else that is known."""
    known = state.model_dump(mode="json", exclude={"started", "ended"})
    return {
        **known,
        "request": trainings.order(state).model_dump(),
        "start_ts": _time(state.started),
        "end_ts": None if state.ended is None else _time(state.ended),
        "details": trainings.details(state),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
