"""Who calls, and what that allows."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol


class Role(enum.IntEnum):
    """What a caller may do; each role may do what those below may."""

    USER = 1
    """Look at studies, click."""
    ANNOTATOR = 2
    """Save labels, add images."""
    REVIEWER = 3
    """Approve and flag labels, take them away."""
    ADMIN = 4
    """Train, replace the network, remove images."""

    @property
    def title(self) -> str:
        """As people write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller.

    Attributes:
        name: for the audit log; no secret.
        role: the highest that the caller has.
    """

    name: str
    role: Role


EVERYBODY = Identity("", Role.ADMIN)
"""Whoever calls a server without sign-in, which only this machine can reach."""


class Door(Protocol):
    """How callers are told apart."""

    @property
    def is_open(self) -> bool:
        """Whether nobody has to sign in."""

    def identify(self, token: str | None) -> Identity:
        """Whose ``token`` that is.

        Raises:
            NotSignedIn: nobody's, or there is none and one is needed.
        """


class OpenDoor:
    """No sign-in: everybody may do everything."""

    is_open = True

    def identify(self, token: str | None) -> Identity:
        """Everybody is the same."""
        del token
        return EVERYBODY
