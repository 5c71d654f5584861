"""Where the DICOMweb server is, and how it is spoken to: parsed once at start-up."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from monailabel.config import Settings

from deepgrow3d_app.errors import InvalidRequest

MODALITIES = ("CT", "MR")
SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class DicomWebAddress:
    """A DICOMweb server.

    Attributes:
        url: its root, without credentials and without a slash at the end: ``http://127.0.0.1:8042/dicom-web``.
        username, password: for HTTP's basic authentication; "" for none.
        qido_prefix, wado_prefix, stow_prefix: where searching, fetching and storing lie below it; "" for the root.
        filters: the searches whose results are the studies, DICOM keywords and values; together they are all images.
        timeout_s: how long an answer may keep quiet before the server counts as away.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    qido_prefix: str = ""
    wado_prefix: str = ""
    stow_prefix: str = ""
    filters: tuple[Mapping[str, str], ...] = tuple({"Modality": modality} for modality in MODALITIES)
    timeout_s: float = 30.0

    @classmethod
    def of(cls, studies: str, settings: Settings) -> DicomWebAddress:
        """The server at the address ``studies``, with what MONAI Label's ``settings`` say of it.

        Credentials may stand in the address (``http://name:password@host``); the settings' come first. Without a
        ``MONAI_LABEL_DICOMWEB_SEARCH_FILTER``, all CT and MR series are the studies.

        Raises:
            InvalidRequest: the address is none.
        """
        parts = urlsplit(studies.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(
                f"'{_public(studies)}' is no address. Give one such as http://127.0.0.1:8042/dicom-web."
            )
        host = parts.netloc.rpartition("@")[2]
        is_filtered = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER" in settings.model_fields_set
        given = {str(key): str(value) for key, value in settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER.items()}
        return cls(
            url=urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")),
            username=settings.MONAI_LABEL_DATASTORE_USERNAME
            or settings.MONAI_LABEL_DICOMWEB_USERNAME
            or unquote(parts.username or ""),
            password=settings.MONAI_LABEL_DATASTORE_PASSWORD
            or settings.MONAI_LABEL_DICOMWEB_PASSWORD
            or unquote(parts.password or ""),
            qido_prefix=(settings.MONAI_LABEL_QIDO_PREFIX or "").strip("/"),
            wado_prefix=(settings.MONAI_LABEL_WADO_PREFIX or "").strip("/"),
            stow_prefix=(settings.MONAI_LABEL_STOW_PREFIX or "").strip("/"),
            filters=(given,) if is_filtered else tuple({"Modality": modality} for modality in MODALITIES),
            timeout_s=settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT,
        )

    def folder(self) -> Path:
        """Where what the server keeps is kept where nobody chose a folder."""
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return Path(data) / "deepgrow3d"

    @property
    def folder_name(self) -> str:
        """A name for what is kept of this server, and of no other."""
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", self.url.partition("://")[2])[:80].strip("-.")
        return f"{readable}-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"


def is_address(studies: str) -> bool:
    """Whether ``studies`` names a server and not a folder."""
    return studies.strip().lower().startswith(SCHEMES)


def _public(studies: str) -> str:
    """``studies`` without what may be a password."""
    return re.sub(r"//[^/@]*@", "//", studies)
