"""What whoever runs the server may choose, parsed once at start-up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.engine_choice import EngineName

SAMPLES = Path(__file__).parents[2] / "sample-data"
BTCV_OF_REFERENCE = (
    "spleen",
    "kidney_right",
    "kidney_left",
    "gallbladder",
    "liver",
    "stomach",
    "aorta",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    "pancreas",
    "adrenal_gland_right",
    "adrenal_gland_left",
)

MIB = 1 << 20
GIB = 1 << 30


def _listed(value: object) -> object:
    """A text as a list: JSON, or entries with commas between them."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else list(filter(None, map(str.strip, value.split(","))))


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed)]


class ServingSettings(BaseSettings):
    """Settings of the server: from ``DEEPGROW3D_...`` variables, or from ``--conf name value`` of MONAI Label.

    An empty variable is as none. Lists are written with commas between their entries, or in JSON.

    Attributes:
        checkpoint: the served weights; ``None`` for those in the app's ``model`` folder.
        engine: what computes the network: ``openvino``, ``torch``, or ``auto`` for PyTorch on a GPU and OpenVINO
            (when it is ready) on a CPU.
        torch_compile: whether PyTorch compiles the network on a GPU: faster, after a minute at start-up.
        cache_folder: where decoded volumes, converted networks and click logs are kept; ``None`` for ``.deepgrow3d``
            in the studies folder. Decoded volumes are mapped into memory: where several machines serve one network
            share, give each a folder on a disk of its own.
        volume_disk_bytes: bound on the decoded volumes on disk; 0 keeps none there.
        worker_threads: clicks that are computed at once; further ones wait.
        max_waiting: clicks that may wait; beyond that the server says that it is busy.
        volume_cache_bytes: bound on the decoded volumes kept in memory, where they are not kept on disk.
        click_memory_bytes: bound on the masks remembered between the clicks of one structure. What is not remembered is
            computed again from the first click on: 0 makes every click as slow as all before it together.
        session_folder: where sessions are kept; ``None`` for ``.deepgrow3d/sessions`` in the studies folder.
        session_expiry_s: how long an unused session is kept, at most.
        session_bytes: bound on all sessions together.
        upload_bytes: the largest request body that is accepted.
        dicom_disk_bytes: bound on the series that are kept of a DICOMweb server.
        dicomweb_refresh_s: how old the list of a DICOMweb server's studies may be.
        dicomweb_removes_superseded: whether the segmentation of an earlier save is removed from the DICOMweb server.
        replay_folders: cases that every training mixes in, so that what they show is not forgotten; a folder of
            cases each.
        reference_case: a labelled case on which no trained network may become worse; it is never trained on.
        reference_structures: names of what is scored in it.
        tokens_file: whose tokens are good (see ``security.tokens``); with it, everybody has to sign in.
        tokens: the same lines, in the variable itself, separated by commas.
        insecure: whether other machines may call although nobody signs in.
        hosts: further names that the server may be called by, while nobody signs in.
        requests_per_minute: of one caller; 0 for any number.
        upload_idle_s: how long a client may send nothing in the middle of a request.
        log_format: ``text`` for people, ``json`` for programs.
    """

    model_config = SettingsConfigDict(env_prefix="DEEPGROW3D_", frozen=True, extra="ignore", env_ignore_empty=True)

    checkpoint: Path | None = None
    engine: EngineName = "auto"
    torch_compile: bool = False
    cache_folder: Path | None = None
    volume_disk_bytes: int = Field(default=16 * GIB, ge=0)
    worker_threads: int = Field(default=1, ge=1, le=64)
    max_waiting: int = Field(default=64, ge=0)
    volume_cache_bytes: int = Field(default=2 * GIB, ge=0)
    click_memory_bytes: int = Field(default=256 * MIB, ge=0)
    session_folder: Path | None = None
    session_expiry_s: int = Field(default=3600, ge=60)
    session_bytes: int = Field(default=16 * GIB, ge=1)
    upload_bytes: int = Field(default=2 * GIB, ge=1)
    dicom_disk_bytes: int = Field(default=32 * GIB, ge=1)
    dicomweb_refresh_s: float = Field(default=2.0, ge=0)
    dicomweb_removes_superseded: bool = True
    replay_folders: Paths = tuple(sorted((SAMPLES / "replay").glob("*/")))
    reference_case: Path | None = SAMPLES / "reference" / "ct-trunk"
    reference_structures: Names = BTCV_OF_REFERENCE
    tokens_file: Path | None = None
    tokens: str = ""
    insecure: bool = False
    hosts: Names = ()
    requests_per_minute: int = Field(default=6000, ge=0)
    upload_idle_s: float = Field(default=60.0, gt=0)
    log_format: Literal["text", "json"] = "text"

    @classmethod
    def load(cls, conf: Mapping[str, str]) -> ServingSettings:
        """The settings of the environment, with those of ``conf`` on top; other names in ``conf`` are left alone.

        Raises:
            InvalidRequest: a value that cannot be used; the message names it and its bound.
        """
        try:
            return cls(**{name: value for name, value in conf.items() if name in cls.model_fields})  # type: ignore[arg-type]
        except ValidationError as error:
            faults = "; ".join(
                f"DEEPGROW3D_{'_'.join(map(str, fault['loc'])).upper()} is {fault['input']!r}: {fault['msg']}"
                for fault in error.errors()
            )
            raise InvalidRequest(f"The server's settings cannot be used. {faults}.") from error
