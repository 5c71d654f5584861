"""What lies around the routes, put together from the settings."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from monailabel.config import settings as monailabel_settings

from deepgrow3d_app.serving.security.audit import Audit, AuditLog
from deepgrow3d_app.serving.security.callers import SIGN_IN, Callers
from deepgrow3d_app.serving.security.door import door_of
from deepgrow3d_app.serving.security.headers import SecurityHeaders
from deepgrow3d_app.serving.security.identity import Door
from deepgrow3d_app.serving.security.last_resort import LastResort
from deepgrow3d_app.serving.security.origins import LOCAL_NAMES, OriginGuard
from deepgrow3d_app.serving.security.request_id import RequestId
from deepgrow3d_app.serving.security.upload_limit import UploadLimit
from deepgrow3d_app.serving.settings import ServingSettings


def secure(api: FastAPI, serving: ServingSettings, audit_folder: Path | None) -> Door:
    """Put everything that a request passes before its route around ``api``, and return its door.

    Raises:
        InvalidRequest: settings that cannot be used.
    """
    door = door_of(serving)
    origins = [str(origin).rstrip("/") for origin in monailabel_settings.MONAI_LABEL_CORS_ORIGINS]
    is_local = door.is_open and not serving.insecure
    # What is added last is passed first.
    prefix = monailabel_settings.MONAI_LABEL_API_STR
    api.add_middleware(
        UploadLimit,
        max_bytes=serving.upload_bytes,
        idle_s=serving.upload_idle_s,
        open_paths=frozenset(prefix + path for path in SIGN_IN),
    )
    api.add_middleware(
        CORSMiddleware, allow_origins=origins, allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )
    api.add_middleware(Callers, door=door, requests_per_minute=serving.requests_per_minute, prefix=prefix)
    api.add_middleware(
        OriginGuard,
        origins=origins,
        hosts={*LOCAL_NAMES, *(name.lower() for name in serving.hosts)} if is_local else None,
        is_local=is_local,
    )
    api.add_middleware(LastResort)
    api.add_middleware(SecurityHeaders, shares=bool(origins))
    api.add_middleware(Audit, log=AuditLog(audit_folder), prefix=prefix)
    api.add_middleware(RequestId)
    return door
