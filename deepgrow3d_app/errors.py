"""Every error that this package raises on purpose.

    DeepGrow3DError
    ├── InvalidInput              what was asked or sent is at fault: change it and try again
    │   ├── UnreadableVolume      a file cannot be decoded (missing, truncated, corrupt, unknown format)
    │   ├── UnsupportedVolume     a file decodes, but not to one finite, scalar, 3-D image
    │   ├── InvalidClicks         clicks that mean nothing on this volume
    │   │   ├── ClickOutsideVolume
    │   │   ├── NoForegroundClick
    │   │   └── ContradictoryClicks
    │   ├── InvalidRequest        a malformed parameter, identifier or upload
    │   └── LabelMismatch         a label that does not lie on its image's grid
    ├── NotSignedIn               nobody says who calls, or the token is not good
    ├── NotAllowed                the caller may not do this, or not from there
    ├── NotFound                  an image, label, model, session or strategy that does not exist
    ├── Busy                      the resource is taken: the same call may succeed later
    ├── Superseded                nobody needs the answer any more: a newer request took its place
    ├── Cancelled                 whoever asked is gone
    ├── CheckpointError           weights that are missing, damaged or of another layout
    ├── EngineError               the network cannot be computed in the way that was asked for
    ├── OutOfMemory               neither the GPU nor the CPU has the memory that an answer takes
    ├── TrainingError             training cannot start or go on
    └── ServerFault               a server that was asked does not answer as it should

A message names the value, the bound and the remedy, and is fit to be shown to a user as it is.
HTTP statuses are chosen in one place only: ``deepgrow3d_app.serving.faults``.
"""

from __future__ import annotations

from collections.abc import Sequence


class DeepGrow3DError(Exception):
    """Base of the tree: catch this to catch everything that the package raises on purpose."""


class InvalidInput(DeepGrow3DError):
    """What was asked or sent is at fault."""


class UnreadableVolume(InvalidInput):
    """A file cannot be decoded as a medical volume."""

    def __init__(self, file: str, fault: str, remedy: str = "Check that the file is complete.") -> None:
        super().__init__(f"Cannot read '{file}': {fault}. {remedy}")
        self.file = file
        self.fault = fault


class UnsupportedVolume(InvalidInput):
    """A file decodes, but is not one finite, scalar, 3-D image."""

    def __init__(self, file: str, fault: str, remedy: str) -> None:
        super().__init__(f"'{file}' cannot be used: {fault}. {remedy}")
        self.file = file
        self.fault = fault


class InvalidClicks(InvalidInput):
    """Clicks that mean nothing on the volume they were made on."""


class ClickOutsideVolume(InvalidClicks):
    """A click whose voxel does not exist."""

    def __init__(self, index: Sequence[int], shape: Sequence[int]) -> None:
        last = tuple(n - 1 for n in shape)
        super().__init__(
            f"Click {tuple(index)} lies outside the volume of shape {tuple(shape)}. "
            f"Send voxel indices (i, j, k) of the stored image, from (0, 0, 0) to {last}."
        )
        self.index = tuple(index)
        self.shape = tuple(shape)


class NoForegroundClick(InvalidClicks):
    """Background clicks alone do not say what to segment."""

    def __init__(self) -> None:
        super().__init__("There is no foreground click. Send at least one click inside the structure.")


class ContradictoryClicks(InvalidClicks):
    """One voxel was clicked as foreground and as background."""

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__(
            f"Voxel {tuple(index)} was clicked both as foreground and as background. Remove one of the two clicks."
        )
        self.index = tuple(index)


class InvalidRequest(InvalidInput):
    """A malformed parameter, identifier or upload."""


class LabelMismatch(InvalidInput):
    """A label that does not lie on the grid of its image."""


class NotSignedIn(DeepGrow3DError):
    """It is not known who calls, and has to be."""


class NotAllowed(DeepGrow3DError):
    """The caller may not do this, or not from where the call comes."""


class NotFound(DeepGrow3DError):
    """Something that was named does not exist."""


class Busy(DeepGrow3DError):
    """The resource is taken; the same call may succeed later, after ``retry_after_s`` seconds most likely."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, retry_after_s)


class Superseded(DeepGrow3DError):
    """A newer request took the place of this one."""


class Cancelled(DeepGrow3DError):
    """Whoever asked is gone."""


class CheckpointError(DeepGrow3DError):
    """Weights that are missing, damaged or of another layout."""


class EngineError(DeepGrow3DError):
    """The network cannot be computed in the way that was asked for."""


class OutOfMemory(DeepGrow3DError):
    """Neither the GPU nor the CPU has the memory that an answer takes."""


class TrainingError(DeepGrow3DError):
    """Training cannot start or go on."""


class ServerFault(DeepGrow3DError):
    """A server that was asked does not answer as it should."""

    def __init__(self, url: str, fault: str) -> None:
        super().__init__(f"The server at '{url}' is of no use: {fault}. Check its address, and that it runs.")
        self.url = url
        self.fault = fault
