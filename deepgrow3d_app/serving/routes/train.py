"""``/train``: nothing can be trained through the server yet, and viewers are told so in their own terms."""

from __future__ import annotations

from fastapi import APIRouter

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.serving.access import ADMIN, USER

router = APIRouter(prefix="/train", tags=["Train"])


@router.get("/", dependencies=USER)
def status(all: bool = False, check_if_running: bool = False) -> None:
    """The running training: there is none."""
    raise NotFound("No training is running.")


@router.post("/", include_in_schema=False, dependencies=ADMIN)
@router.post("/{model}", dependencies=ADMIN)
def start(model: str = "") -> None:
    """Refused: training starts from the command line."""
    raise NotFound("There is nothing that can be trained through this server. Run `deepgrow3d train` where it runs.")


@router.delete("/", dependencies=ADMIN)
def stop() -> None:
    """Stop the running training: there is none."""
    raise NotFound("No training is running.")
