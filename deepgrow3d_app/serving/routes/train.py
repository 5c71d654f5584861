"""``/train``: the served model learns from the labels that are saved here."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from deepgrow3d_app.errors import InvalidRequest, NotFound
from deepgrow3d_app.retraining.order import RetrainingOrder
from deepgrow3d_app.serving.access import ADMIN, USER, FileWorkers, Served
from deepgrow3d_app.serving.app import MODEL_NAME
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.json_body import JsonBody
from deepgrow3d_app.serving.training.shown_training import shown_training

router = APIRouter(prefix="/train", tags=["Train"])

MAX_CLIENT_ID = 200


@router.get("/", dependencies=USER)
def status(served: Served, all: bool = False, check_if_running: bool = False) -> Any:
    """The latest training, the one that runs (404 where none does), or all that are remembered."""
    trainings = served.trainings
    if all:
        return [shown_training(trainings, state) for state in trainings.all()]
    state = trainings.running() if check_if_running else trainings.latest()
    if state is None:
        raise NotFound("No training is running." if check_if_running else "No training was started here yet.")
    return shown_training(trainings, state)


@router.post("/", include_in_schema=False, dependencies=ADMIN)
async def start_all(served: Served, workers: FileWorkers, params: JsonBody) -> dict[str, Any]:
    """Train every model: there is one."""
    return {MODEL_NAME: {"result": await start(served, workers, MODEL_NAME, params), "detail": None}}


@router.post("/{model}", dependencies=ADMIN)
async def start(served: Served, workers: FileWorkers, model: str, params: JsonBody) -> dict[str, Any]:
    """Train the served model on from the labels that are saved now; a better one is served at once.

    `params`: see `trainers` in GET /info/, at the top or under the model's name, as viewers send them.
    `{"resume": true}` goes on with the last training where it was interrupted, `{"resume": ID}` with another one.
    """
    if model != MODEL_NAME:
        raise NotFound(f"There is nothing to train that is called {shown(model)}. The model here is '{MODEL_NAME}'.")
    given = {**params}
    nested = given.pop(model, None)
    given.update(nested if isinstance(nested, dict) else {})
    return await workers.run(_start, served, given)


def _start(served: Served, given: dict[str, Any]) -> dict[str, Any]:
    trainings = served.trainings
    if resume := given.get("resume"):
        return shown_training(trainings, trainings.resume(None if resume is True else str(resume)))
    order = RetrainingOrder.of(given)
    if trainings.running() is None and not served.images().get_labeled_images():
        raise InvalidRequest("No image has a final label, so there is nothing to learn from. Save labels first.")
    client = str(given.get("client_id") or "")[:MAX_CLIENT_ID]
    return shown_training(trainings, trainings.start(order, client))


@router.delete("/", dependencies=ADMIN)
async def stop(served: Served, workers: FileWorkers) -> dict[str, Any]:
    """Stop the training that runs; what it has learnt is kept, and it can be resumed."""
    return shown_training(served.trainings, await workers.run(served.trainings.stop))
