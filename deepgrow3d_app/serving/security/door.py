"""Which door a server has, by its settings."""

from __future__ import annotations

from monailabel.config import settings as monailabel_settings

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.security.identity import Door, OpenDoor
from deepgrow3d_app.serving.security.tokens import TokenDoor, parse_tokens
from deepgrow3d_app.serving.settings import ServingSettings

TOKENS_VARIABLE = "DEEPGROW3D_TOKENS"


def door_of(serving: ServingSettings) -> Door:
    """The sign-in of MONAI Label where that is on, else tokens where there are any, else none.

    Raises:
        InvalidRequest: settings that contradict each other, or tokens that cannot be used.
    """
    has_tokens = serving.tokens_file is not None or bool(serving.tokens.strip())
    if monailabel_settings.MONAI_LABEL_AUTH_ENABLE:
        if has_tokens:
            raise InvalidRequest("Both MONAI_LABEL_AUTH_ENABLE and tokens are set. Choose one way to sign in.")
        from deepgrow3d_app.serving.security.keycloak import KeycloakDoor

        return KeycloakDoor()
    if has_tokens:
        return TokenDoor(serving.tokens_file, parse_tokens(serving.tokens, TOKENS_VARIABLE))
    return OpenDoor()
