"""Whether the server can do its work, for whatever watches over it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import BaseModel, Field

from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.click_queue import ClickQueue

LEAST_FREE_BYTES = 256 << 20


class Health(BaseModel):
    """What is wrong, if anything."""

    status: str = Field(description="'ready', or 'not ready'")
    faults: dict[str, str] = Field(description="what does not work, and what to do")

    @property
    def is_ready(self) -> bool:
        """Whether a click and a save would be answered now."""
        return not self.faults


def health_of(served: DeepGrow3DApp, queue: ClickQueue) -> Health:
    """Look at everything that a click or a save takes."""
    faults = {}
    if queue.is_full:
        faults["clicks"] = "As many clicks wait as may. Try again in a moment."
    studies = None if served.dicomweb is not None else Path(served.studies)
    if studies is not None and not os.access(studies, os.R_OK | os.X_OK):
        faults["studies"] = "The studies cannot be read. Look whether their disk is there."
    for name, folder in (("studies", studies), ("kept", served.kept)):
        if folder is None or name in faults or served.is_read_only:
            continue
        try:
            existing = next(place for place in (folder, *folder.parents) if place.exists())
            if not os.access(existing, os.W_OK):
                faults[name] = "Nothing can be saved: the folder is read-only."
            elif shutil.disk_usage(existing).free < LEAST_FREE_BYTES:
                faults[name] = f"Less than {LEAST_FREE_BYTES >> 20} MiB are free. Make room."
        except OSError as error:
            faults[name] = f"The folder cannot be looked at: {error.strerror}."
    return Health(status="not ready" if faults else "ready", faults=faults)
