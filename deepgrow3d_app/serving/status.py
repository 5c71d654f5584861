"""What a newcomer wants to know of the server, for the page at ``/``."""

from __future__ import annotations

import csv
import hashlib
import json
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, Field

from deepgrow3d_app import __version__
from deepgrow3d_app.serving.app import MODEL_NAME, DeepGrow3DApp
from deepgrow3d_app.serving.click_queue import ClickQueue
from deepgrow3d_app.serving.file_version import FileVersion, file_version
from deepgrow3d_app.serving.metrics import Metrics

EVALUATIONS = Path(__file__).parents[2] / "docs" / "evaluation"
SHOWN_CLICKS = (1, 3, 5, 10, 15)


class Score(BaseModel):
    """Mean Dice of these weights on one data set."""

    data: str
    clicks: dict[int, float] = Field(description="mean Dice, by the number of clicks")


class ModelStatus(BaseModel):
    """The weights that answer."""

    name: str
    date: datetime = Field(description="of the checkpoint file")
    devices: list[str] = Field(description="what computes")
    scores: list[Score] = Field(description="empty where these weights were not evaluated")


class StudiesStatus(BaseModel):
    """What there is to annotate."""

    total: int
    done: int = Field(description="with a final label")
    is_dicomweb: bool


class ClicksStatus(BaseModel):
    """What clicks are doing."""

    waiting: int
    running: int
    answered: int
    median_s: float | None = Field(description="of the last clicks; null before the first")


class TrainingStatus(BaseModel):
    """A training that this server runs or ran."""

    is_running: bool
    step: int
    total_steps: int
    dice: list[tuple[int, float]] = Field(description="(step, validation Dice)")
    message: str = Field(description="what happened last, or what came of it")


class Status(BaseModel):
    """All of it."""

    version: str
    model: ModelStatus
    studies: StudiesStatus
    clicks: ClicksStatus
    training: TrainingStatus | None = Field(description="null where none was started")


def status_of(served: DeepGrow3DApp, queue: ClickQueue, metrics: Metrics) -> Status:
    """The state of the server now."""
    studies = served.images().status()
    checkpoint = served.model.path
    version = file_version(checkpoint)
    return Status(
        version=__version__,
        model=ModelStatus(
            name=MODEL_NAME,
            date=datetime.fromtimestamp(version[0] / 1e9 if version else 0, timezone.utc),
            devices=list(served.model.loaded.predictors.devices),
            scores=_scores(checkpoint, version),
        ),
        studies=StudiesStatus(
            total=studies["total"], done=studies["completed"], is_dicomweb=served.dicomweb is not None
        ),
        clicks=ClicksStatus(
            waiting=queue.waiting, running=queue.running, answered=metrics.n_answered, median_s=metrics.median_s
        ),
        training=_training(served),
    )


def _training(served: DeepGrow3DApp) -> TrainingStatus | None:
    state = served.trainings.latest()
    if state is None:
        return None
    return TrainingStatus(
        is_running=state.status == "RUNNING",
        step=state.step,
        total_steps=state.total_steps,
        dice=state.curve,
        message=state.message,
    )


@lru_cache(maxsize=4)
def _scores(checkpoint: Path, version: FileVersion) -> list[Score]:
    """The scores that were published with the code, where they are those of ``checkpoint`` in this ``version``."""
    if not version:
        return []
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    scores = []
    for results in sorted(EVALUATIONS.glob("*/results.json")):
        methods = json.loads(results.read_text(encoding="utf-8"))["setting"]["methods"]
        if any(method["details"].get("sha256") == digest for method in methods):
            scores.append(Score(data=results.parent.name, clicks=_mean_dice(results.with_name("summary.csv"))))
    return scores


def _mean_dice(summary: Path) -> dict[int, float]:
    with summary.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["structure"] == "mean"]
    mean = next(
        row for row in rows if row.get("method", "network") == "network" and row.get("user", "perfect") == "perfect"
    )
    return {count: float(mean[f"dice_{count}"]) for count in SHOWN_CLICKS if mean.get(f"dice_{count}")}
