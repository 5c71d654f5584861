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


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as a list of one."""
    seconds = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_realm_that_changes_its_key_is_asked_now_and_then(realm, clock):
    door = KeycloakDoor()
    door.identify(token("monailabel-user"))
    realm.key = OTHER_KEY
    with pytest.raises(NotSignedIn):
        door.identify(token("monailabel-user", key=OTHER_KEY))
    assert realm.asked == 1
    clock[0] += keycloak.ASKED_AGAIN_S
    assert door.identify(token("monailabel-user", key=OTHER_KEY)).role == Role.USER
    for _ in range(3):
        with pytest.raises(NotSignedIn):
            door.identify(token("monailabel-user"))
    assert realm.asked == 2


def test_a_key_that_was_replaced_opens_nothing_after_a_while(realm, clock):
    door = KeycloakDoor()
    door.identify(token("monailabel-user"))
    realm.key = OTHER_KEY
    clock[0] += keycloak.MAX_AGE_S + 1
    with pytest.raises(NotSignedIn):
        door.identify(token("monailabel-user"))


def test_a_realm_that_is_away_is_asked_once_and_keeps_out_nobody_it_knows(realm, clock, monkeypatch):
    door = KeycloakDoor()
    good = token("monailabel-user")
    door.identify(good)
    asked = []

    def gone(url, timeout):
        asked.append(url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", gone)
    clock[0] += keycloak.MAX_AGE_S + 1
    for _ in range(3):
        with pytest.raises(NotSignedIn):
            door.identify(token("monailabel-user", key=OTHER_KEY))
        assert door.identify(good).role == Role.USER
    assert len(asked) == 1


def test_two_callers_with_the_new_key_are_both_let_in(realm, clock):
    """The second finds that the first has asked already."""
    key = keycloak.RealmKey()
    old = key.current()
    realm.key = OTHER_KEY
    clock[0] += keycloak.ASKED_AGAIN_S
    assert key.is_other_than(old)
    assert key.is_other_than(old)
    assert not key.is_other_than(key.current())
    assert realm.asked == 2


@pytest.mark.parametrize("content", [b"no JSON", b"[]", b'{"public_key": null}', b'{"public_key": "AAAA"}', b"{}"])
def test_what_is_no_key_is_not_taken_for_one(content, monkeypatch):
    answer = requests.Response()
    answer.status_code = 200
    answer._content = content
    monkeypatch.setattr(requests, "get", lambda url, timeout: answer)
    with pytest.raises(ServerFault, match="does not tell its public key"):
        KeycloakDoor().identify(token("monailabel-admin"))
