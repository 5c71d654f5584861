"""Bearer tokens: a file says whose they are and keeps only their hashes.

A line is ``NAME ROLE SHA256``, of 64 hexadecimal digits; ``#`` begins a comment. Tokens are 256 random bits, so that
one round of SHA-256 is enough: there is nothing to guess. ``deepgrow3d token`` makes and revokes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import logging
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from deepgrow3d_app.errors import InvalidRequest, NotFound, NotSignedIn
from deepgrow3d_app.serving.identifiers import shown
from deepgrow3d_app.serving.security.identity import Identity, Role
from deepgrow3d_app.volume.atomic_file import replace_file

logger = logging.getLogger(__name__)

TOKEN_BYTES = 32
PREFIX = "dg3d_"
"""Told apart from other secrets, by people and by programs that look for leaked ones."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """Whose a token is, and its hash."""

    identity: Identity
    sha256: str

    def line(self) -> str:
        """As it stands in a file."""
        return f"{self.identity.name} {self.identity.role.title} {self.sha256}"


def parse_tokens(text: str, source: str) -> tuple[TokenEntry, ...]:
    """The entries of ``text``, by lines or separated by commas.

    Args:
        text: of a file, or of a variable.
        source: what messages call it.

    Raises:
        InvalidRequest: a line that is none; the message tells which, and never repeats it: it may hold a secret.
    """
    entries: list[TokenEntry] = []
    for number, line in enumerate(re.split(r"[\n,]", text), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        roles = {role.title: role for role in Role}
        if len(words) != 3 or not _NAME.fullmatch(words[0]) or words[1] not in roles or not _DIGEST.fullmatch(words[2]):
            raise InvalidRequest(
                f"Line {number} of {source} is no token. Write NAME ROLE SHA256, with a name of letters, digits and "
                f"'._@-', a role of {', '.join(roles)}, and 64 hexadecimal digits; or use `deepgrow3d token add`."
            )
        if any(entry.identity.name == words[0] for entry in entries):
            raise InvalidRequest(f"{shown(words[0])} stands twice in {source}. Give every token a name of its own.")
        entries.append(TokenEntry(Identity(words[0], roles[words[1]]), words[2]))
    return tuple(entries)


def hashed(token: str) -> str:
    """What is kept of ``token``: 64 hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class TokenFile:
    """A file of tokens, for the command line.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> tuple[TokenEntry, ...]:
        """Everybody's.

        Raises:
            InvalidRequest: the file is damaged.
        """
        if not self.path.exists():
            return ()
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                f"The file of tokens '{self.path.name}' cannot be read ({type(error).__name__}). "
                "Let the server's user read it."
            ) from error
        return parse_tokens(text, f"'{self.path.name}'")

    def add(self, name: str, role: Role) -> str:
        """A new token of ``name``, which is not kept and cannot be shown again.

        Raises:
            InvalidRequest: a name outside the grammar, or one that has a token.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"{shown(name)} is no name. Choose 1 to 64 letters, digits and '._@-', the first a letter or a digit."
            )
        token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        entry = TokenEntry(Identity(name, role), hashed(token))
        with self._locked():
            if any(one.identity.name == name for one in self.entries()):
                raise InvalidRequest(
                    f"{shown(name)} has a token in '{self.path.name}'. Remove it first, or choose another name."
                )
            self._write([*self._lines(), entry.line()])
        return token

    def remove(self, name: str) -> None:
        """Revoke the token of ``name``; a server that runs refuses it from its next request on.

        Raises:
            NotFound: there is none.
        """
        with self._locked():
            if all(entry.identity.name != name for entry in self.entries()):
                raise NotFound(f"There is no token of {shown(name)} in '{self.path.name}'.")
            self._write([line for line in self._lines() if line.partition("#")[0].split()[:1] != [name]])

    def _lines(self) -> list[str]:
        """As they are, comments too."""
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two commands at once must not lose each other's token, which was handed out."""
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            yield

    def _write(self, lines: list[str]) -> None:
        before = self.path.stat() if self.path.exists() else None
        replace_file(self.path, io.BytesIO("".join(f"{line}\n" for line in lines).encode()))
        self.path.chmod(0o600 if before is None else stat.S_IMODE(before.st_mode))
        if before is not None and os.geteuid() == 0:  # the server's user goes on reading it
            os.chown(self.path, before.st_uid, before.st_gid)


class TokenDoor:
    """Callers show a token; thread-safe.

    Args:
        path: of the file, which is read again when it changes; ``None`` for none.
        fixed: entries beside it, of the environment.

    Raises:
        InvalidRequest: the file is missing, damaged, or there is no token at all.
    """

    is_open = False

    def __init__(self, path: Path | None, fixed: tuple[TokenEntry, ...] = ()) -> None:
        self._path = path
        self._fixed = fixed
        self._lock = threading.Lock()
        self._version: tuple[int, ...] = ()
        self._entries: tuple[TokenEntry, ...] = ()
        if path is not None and not path.is_file():
            raise InvalidRequest(
                f"There is no file of tokens '{path}'. Make one with `deepgrow3d token add NAME --file {path.name}`."
            )
        if path is not None:
            TokenFile(path).entries()  # what is wrong with it is told now
        if not self._current():
            raise InvalidRequest("There is no token, so nobody could sign in. Make one with `deepgrow3d token add`.")

    def identify(self, token: str | None) -> Identity:
        """See :class:`~deepgrow3d_app.serving.security.identity.Door`."""
        if not token:
            raise NotSignedIn("This server asks for a token. Send it as 'Authorization: Bearer TOKEN', or sign in.")
        digest = hashed(token)
        found = None
        for entry in self._current():  # all of them, so that the time tells nothing
            if hmac.compare_digest(entry.sha256, digest):
                found = entry.identity
        if found is None:
            raise NotSignedIn("The token is unknown or was revoked. Ask whoever runs this server for another one.")
        return found

    def _current(self) -> tuple[TokenEntry, ...]:
        if self._path is None:
            return self._fixed
        with self._lock:
            try:
                status = self._path.stat()
                version = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)  # chown mends, too
                if version != self._version:
                    self._version = version
                    self._entries = ()
                    self._entries = TokenFile(self._path).entries()
            except FileNotFoundError:
                self._entries, self._version = (), ()  # taken away: nobody has a token any more
            except (InvalidRequest, OSError):
                logger.exception("Nobody can sign in by the file of tokens until it is mended")
            return (*self._entries, *self._fixed)
