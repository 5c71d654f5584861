"""Tokens that a realm of our own signs."""

import time

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from monailabel.endpoints.user import auth

from deepgrow3d_app.errors import NotAllowed, NotSignedIn, ServerFault
from deepgrow3d_app.serving.security.identity import Identity, Role
from deepgrow3d_app.serving.security.keycloak import KeycloakDoor

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = (
    KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode("ascii")
)


@pytest.fixture(autouse=True)
def realm(monkeypatch):
    monkeypatch.setattr(auth, "get_public_key", lambda realm: PUBLIC)


def token(*roles, key=KEY, algorithm="RS256", **claims):
    content = {"preferred_username": "anna", "realm_access": {"roles": list(roles)}, "exp": time.time() + 60}
    return jwt.encode({**content, **claims}, key, algorithm=algorithm)


def test_the_highest_role_counts():
    assert KeycloakDoor().identify(token("monailabel-user", "monailabel-reviewer", "other")) == Identity(
        "anna", Role.REVIEWER
    )


def test_tokens_that_are_not_the_realm_s():
    forged = [
        None,
        "no token",
        token("monailabel-admin", exp=time.time() - 60),
        token("monailabel-admin", key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        token("monailabel-admin", key="a secret that is long enough for HS256", algorithm="HS256"),
        token("monailabel-admin", key=None, algorithm="none"),
    ]
    for one in forged:
        with pytest.raises(NotSignedIn):
            KeycloakDoor().identify(one)


def test_somebody_without_a_role_here():
    for one in (token(), token("other"), token(realm_access=None), token(realm_access={"roles": "monailabel-admin"})):
        with pytest.raises(NotAllowed, match="none of the roles monailabel-user"):
            KeycloakDoor().identify(one)


def test_a_realm_that_does_not_answer(monkeypatch):
    def gone(realm):
        raise requests.ConnectionError

    monkeypatch.setattr(auth, "get_public_key", gone)
    with pytest.raises(ServerFault, match="does not tell its public key"):
        KeycloakDoor().identify(token("monailabel-admin"))
