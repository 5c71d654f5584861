"""MONAI Label's own sign-in: tokens of a Keycloak realm, by its settings ``MONAI_LABEL_AUTH_...``.

Tokens are decoded here: MONAI Label 0.8.5 names no algorithm to PyJWT, which then refuses every token.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from monailabel.config import settings

from deepgrow3d_app.errors import NotAllowed, NotSignedIn, ServerFault
from deepgrow3d_app.serving.security.identity import Identity, Role

logger = logging.getLogger(__name__)

ALGORITHMS = ["RS256"]
"""The one whose keys a realm tells. No other: a token must not choose how it is checked."""

MAX_AGE_S = 300
"""How long a key is believed: one that was stolen and replaced opens nothing after that, unless the realm is away."""

ASKED_AGAIN_S = 15
"""How often a realm is asked at most, answer or none: forged tokens must not make us ask for each."""


class RealmKey:
    """The key with which a realm signs; safe to share between threads.

    It is asked for when it is first needed, when it is old, and when a signature does not fit it: realms change keys.
    A realm that is away keeps nobody waiting who shows a token of the key that is known.
    """

    def __init__(self) -> None:
        self._key: str | None = None
        self._told_at = -math.inf
        self._asked_at = -math.inf
        self._asking = threading.Lock()

    def current(self) -> str:
        """The key in PEM format.

        Raises:
            ServerFault: the realm has not told it.
        """
        if time.monotonic() - self._told_at > MAX_AGE_S:
            self._ask()
        key = self._key
        if key is None:
            raise ServerFault(settings.MONAI_LABEL_AUTH_REALM_URI, "it does not tell its public key")
        return key

    def is_other_than(self, key: str) -> bool:
        """Whether the realm has another key than ``key`` by now; asks it, unless that was a moment ago."""
        if self._key == key:
            self._ask()
        return self._key != key

    def _ask(self) -> None:
        """Ask the realm, unless that was a moment ago, or somebody is asking and a key is known meanwhile."""
        if not self._asking.acquire(blocking=self._key is None):
            return
        try:
            if time.monotonic() - self._asked_at < ASKED_AGAIN_S:
                return
            self._asked_at = time.monotonic()
            self._key = _told_key()
            self._told_at = time.monotonic()
        except (requests.RequestException, KeyError, TypeError, ValueError) as error:
            logger.warning("The realm %s does not tell its public key: %s", settings.MONAI_LABEL_AUTH_REALM_URI, error)
        finally:
            self._asking.release()


def _told_key() -> str:
    answer = requests.get(settings.MONAI_LABEL_AUTH_REALM_URI, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)
    answer.raise_for_status()
    key = f"-----BEGIN PUBLIC KEY-----\n{answer.json()['public_key']}\n-----END PUBLIC KEY-----"
    if not isinstance(load_pem_public_key(key.encode()), RSAPublicKey):
        raise ValueError("it is no RSA key")
    return key


class KeycloakDoor:
    """Callers show a JSON Web Token that the realm signed."""

    is_open = False

    def __init__(self) -> None:
        self._key = RealmKey()

    def identify(self, token: str | None) -> Identity:
        """See :class:`~deepgrow3d_app.serving.security.identity.Door`.

        Raises:
            NotAllowed: somebody whom the realm knows, and who has no role here.
            ServerFault: the realm does not answer.
        """
        if not token:
            raise NotSignedIn("This server asks for a sign-in. Get a token with POST /auth/token.")
        try:
            claims = self._claims(token)
        except jwt.PyJWTError as error:
            raise NotSignedIn("The token is not valid, or no longer. Sign in again (POST /auth/token).") from error
        roles = [role for title, role in _titles().items() if title in _roles(claims)]
        if not roles:
            raise NotAllowed(f"You have none of the roles {', '.join(_titles())}. Ask whoever runs the realm for one.")
        return Identity(str(claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME, "")), max(roles))

    def _claims(self, token: str) -> dict[str, Any]:
        key = self._key.current()
        try:
            return _decoded(token, key)
        except jwt.InvalidSignatureError:
            if not self._key.is_other_than(key):
                raise
            return _decoded(token, self._key.current())


def token_for(username: str, password: str) -> dict[str, Any]:
    """What the realm gives for a name and a password: ``{"access_token": ..., "token_type": ...}`` and more.

    Raises:
        NotSignedIn: the realm does not take them.
        ServerFault: the realm does not answer.
    """
    from monailabel.endpoints.user.auth import token_uri

    realm, timeout_s = settings.MONAI_LABEL_AUTH_REALM_URI, settings.MONAI_LABEL_AUTH_TIMEOUT
    form = {"client_id": settings.MONAI_LABEL_AUTH_CLIENT_ID, "grant_type": "password"}
    try:
        answer = requests.post(token_uri(), {**form, "username": username, "password": password}, timeout=timeout_s)
        if answer.status_code in (400, 401):
            raise NotSignedIn("The realm does not take this name and password.")
        answer.raise_for_status()
        given: dict[str, Any] = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise ServerFault(realm, "it gives no token") from error
    return given


def _titles() -> dict[str, Role]:
    return {
        settings.MONAI_LABEL_AUTH_ROLE_USER: Role.USER,
        settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR: Role.ANNOTATOR,
        settings.MONAI_LABEL_AUTH_ROLE_REVIEWER: Role.REVIEWER,
        settings.MONAI_LABEL_AUTH_ROLE_ADMIN: Role.ADMIN,
    }


def _decoded(token: str, key: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=ALGORITHMS, options={"verify_aud": False})
    return claims


def _roles(claims: Mapping[str, Any]) -> list[str]:
    """Those at the place in the token that the settings name, such as ``realm_access#roles``."""
    found: Any = claims
    for name in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return [str(role) for role in found] if isinstance(found, list) else []
