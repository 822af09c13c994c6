"""Who may look at and change what, how somebody proves to be that person, and why they were not let in.
Counterpart: `store.operators` keeps them, `app.operators` lets them in, `app.roles` says what needs which role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What an operator may do; each may do what those before it may."""

    VIEWER = "viewer"
    RESPONDER = "responder"
    """Alerts and blocks."""
    RULE_AUTHOR = "rule-author"
    """How far a rule's alerts go."""
    ADMIN = "admin"
    """Operators, the fleet, backups."""

    @property
    def rank(self) -> int:
        """0 for the least."""
        return list(Role).index(self)


class LoginReason(StrEnum):
    """What became of somebody who wanted in."""

    LOGGED_IN = "logged-in"
    WRONG = "wrong"
    """Unknown name, wrong password or wrong code: which of them nobody is told."""
    WAIT = "wait"
    """Too many were wrong; it was not even looked at what was given."""
    NOT_LOGGED_IN = "not-logged-in"
    TOKEN_UNKNOWN = "token-unknown"
    TOKEN_ENDED = "token-ended"
    ROLE = "role"
    """Somebody known who may not do that."""


class TokenKind(StrEnum):
    """What a token was made for."""

    SESSION = "session"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Attempts:
    """Wrong ones in a row, and until when (microseconds) nothing more is looked at."""

    wrong: int = 0
    wait_until: int = 0


@dataclass(frozen=True, slots=True)
class Operator:
    """A person. password: as `system.passwords` writes it. totp: base32, the one secret that must be kept readable.

    code_used: the newest 30-second step whose code was taken; it and all before it are spent. known: places this
    person has logged in from, the last one in front. attempts: by place, "" for all the others together.
    """

    name: str
    role: Role
    password: str
    totp: str
    created_at: int
    created_by: str
    code_used: int = 0
    known: tuple[str, ...] = ()
    attempts: Mapping[str, Attempts] = field(default_factory=dict)
    last_login: int = 0


@dataclass(frozen=True, slots=True)
class OperatorToken:
    """Stands for an operator until `expires_at`. digest: SHA-256 of the token in hex; its beginning is the id.

    role: at most this, and never more than the operator has at that time.
    """

    digest: str
    operator: str
    kind: TokenKind
    name: str
    role: Role
    created_at: int
    expires_at: int

    @property
    def id(self) -> str:
        """What people name it by."""
        return self.digest[:16]


@dataclass(frozen=True, slots=True)
class Acting:
    """In whose name a command runs, and what it may do. token: the name of a named token."""

    name: str
    role: Role
    token: str = ""
