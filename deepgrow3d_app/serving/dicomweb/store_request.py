"""What a viewer stores by STOW-RS: DICOM files, one after the other in one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from requests_toolbelt.multipart.decoder import (
    ImproperBodyPartContentException,
    MultipartDecoder,
    NonMultipartContentTypeException,
)

from deepgrow3d_app.errors import InvalidRequest

DICOM = "application/dicom"


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """The files of one request."""

    files: Sequence[bytes]

    @classmethod
    def parse(cls, content_type: str, body: bytes) -> StoreRequest:
        """The files in ``body``.

        Raises:
            InvalidRequest: it is no ``multipart/related`` of DICOM files.
        """
        try:
            parts = MultipartDecoder(body, content_type).parts
        except (NonMultipartContentTypeException, ImproperBodyPartContentException, AttributeError) as error:
            raise InvalidRequest(
                f"What is to be stored came as '{content_type[:80]}'. Send multipart/related with files of {DICOM}."
            ) from error
        return cls([part.content for part in parts])

    def encoded(self) -> tuple[str, bytes]:
        """(content type, body)."""
        boundary = uuid4().hex
        head = f"--{boundary}\r\ncontent-type: {DICOM}\r\n\r\n".encode()
        body = b"".join(head + file + b"\r\n" for file in self.files) + f"--{boundary}--\r\n".encode()
        return f'multipart/related; type="{DICOM}"; boundary={boundary}', body
