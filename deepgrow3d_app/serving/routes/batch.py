"""``/batch/infer``: masks for many images, from clicks that are known beforehand."""

from __future__ import annotations

from fastapi import APIRouter

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.serving.access import ANNOTATOR, USER, FileWorkers, Served
from deepgrow3d_app.serving.app import MODEL_NAME
from deepgrow3d_app.serving.batch.order import BatchOrder
from deepgrow3d_app.serving.batch.runs import BatchState
from deepgrow3d_app.serving.json_body import JsonBody

router = APIRouter(prefix="/batch/infer", tags=["Batch"])


@router.get("/", dependencies=USER)
def status(served: Served, check_if_running: bool = False) -> BatchState:
    """The latest pre-annotation, image by image; 404 where there is none."""
    state = served.batches.latest()
    if state is None or (check_if_running and state.status != "RUNNING"):
        raise NotFound("No pre-annotation is running." if check_if_running else "No pre-annotation was started yet.")
    return state


@router.post("/", dependencies=ANNOTATOR)
@router.post("/{model}", dependencies=ANNOTATOR)
async def start(served: Served, workers: FileWorkers, params: JsonBody, model: str = MODEL_NAME) -> BatchState:
    """Draw and save masks, one structure after the other.

    `{"prompts": {IMAGE: {STRUCTURE: {"foreground": [[i, j, k]]}}}}` clicks there; `{"seeds_from": TAG}` clicks the
    deepest voxel of each structure of an earlier label, in `"images"`: `"unlabeled"`, `"all"` or a list. `"label_tag"`
    is what the masks are saved as. `{"resume": true}` goes on with the last one where it was interrupted.
    """
    served.infer_task(model)
    if params.get("resume"):
        return await workers.run(served.batches.resume)
    return await workers.run(served.batches.start, BatchOrder.of(params))


@router.delete("/", dependencies=ANNOTATOR)
async def stop(served: Served, workers: FileWorkers) -> BatchState:
    """Stop; what is drawn stays, and it can be resumed."""
    return await workers.run(served.batches.stop)
