"""Tokens that a realm of our own signs."""

import base64
import json
import time

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from deepgrow3d_app.errors import NotAllowed, NotSignedIn, ServerFault
from deepgrow3d_app.serving.security import keycloak
from deepgrow3d_app.serving.security.identity import Identity, Role
from deepgrow3d_app.serving.security.keycloak import KeycloakDoor

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Realm:
    """Answers as Keycloak does at a realm's address."""

    def __init__(self):
        self.key = KEY
        self.asked = 0

    def get(self, url, timeout):
        self.asked += 1
        public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        answer = requests.Response()
        answer.status_code = 200
        answer._content = json.dumps({"public_key": base64.b64encode(public).decode("ascii")}).encode("ascii")
        return answer


@pytest.fixture(autouse=True)
def realm(monkeypatch):
    one = Realm()
    monkeypatch.setattr(requests, "get", one.get)
    return one


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
        token("monailabel-admin", key=OTHER_KEY),
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
    def gone(url, timeout):
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", gone)
    with pytest.raises(ServerFault, match="does not tell its public key"):
        KeycloakDoor().identify(token("monailabel-admin"))


def test_a_realm_that_changes_its_key(realm, monkeypatch):
    """Once a minute at most: or each forged token would make us ask."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    door = KeycloakDoor()
    door.identify(token("monailabel-user"))
    realm.key = OTHER_KEY
    with pytest.raises(NotSignedIn):
        door.identify(token("monailabel-user", key=OTHER_KEY))
    assert realm.asked == 1
    now += keycloak.ASKED_AGAIN_S
    assert door.identify(token("monailabel-user", key=OTHER_KEY)).role == Role.USER
    for _ in range(3):
        with pytest.raises(NotSignedIn):
            door.identify(token("monailabel-user"))
    assert realm.asked == 2
