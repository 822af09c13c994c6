"""Who belongs to the fleet: agents, join tokens, and why somebody was not let in.
Counterpart: `fleet` lets agents in by what a `Roll` says, `store.agents` keeps it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vedette.model.batch import REPLAY_HOST_ID

_HOST_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_host_id(text: str) -> bool:
    """Whether `text` is a host id as we make them: a lower-case UUID, and not the one of replays.

    Nothing else may become part of a subject, a user name or a path.
    """
    return _HOST_ID.fullmatch(text) is not None and text != REPLAY_HOST_ID


class AgentState(StrEnum):
    """How the hub stands to an agent."""

    ACTIVE = "active"
    RETIRED = "retired"
    """The host is gone on purpose: nobody is told that it is absent. It may enrol again."""
    REVOKED = "revoked"
    """Its identity is no longer believed; it may never enrol again under this host id."""


class EnrolReason(StrEnum):
    """What became of a request to join or to renew, and why it was refused."""

    ENROLLED = "enrolled"
    REPEATED = "repeated"
    """The same host with the same key and token: the answer before had got lost."""
    RENEWED = "renewed"
    BAD_REQUEST = "bad-request"
    BAD_HOST_ID = "bad-host-id"
    BAD_CSR = "bad-csr"
    """Not a request signed by its own key, of a kind we take, for this host id and nothing more."""
    UNKNOWN_TOKEN = "unknown-token"
    TOKEN_ENDED = "token-ended"
    TOKEN_USED_UP = "token-used-up"
    HOST_ID_TAKEN = "host-id-taken"
    REVOKED = "revoked"
    NOT_ENROLLED = "not-enrolled"
    RATE_LIMITED = "rate-limited"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    TOO_MANY = "too-many"
    NOT_FOUND = "not-found"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an agent last said of itself. at: microseconds, when the hub heard it."""

    at: int = 0
    version: str = ""
    bundle: int = 0
    spooled: int = 0
    session: str = ""
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """A host that was let in.

    enrolment: random, new at every enrolment; it is part of the certificate's subject, so that a certificate of an
    enrolment before is worth nothing. key_hash: SHA-256 of the public key of the newest certificate, hexadecimal;
    serial: of that certificate, hexadecimal; expires_at: when it ends. token: id of the join token. note: words of
    whoever changed `state` last. Times in microseconds.
    """

    host_id: str
    name: str
    group: str
    state: AgentState
    enrolment: str
    serial: str
    key_hash: str
    enrolled_at: int
    expires_at: int
    token: str = ""
    changed_at: int = 0
    changed_by: str = ""
    note: str = ""
    seen: Sighting = Sighting()


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What lets hosts join, without its secret. id: first half of the SHA-256 of the secret, hexadecimal.

    digest: the whole of it. uses_left: how many hosts may still join by it. expires_at: microseconds.
    """

    id: str
    digest: str
    group: str
    uses: int
    uses_left: int
    created_at: int
    expires_at: int
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class Joining:
    """Who wants in: a request that was checked for form. digest: SHA-256 of the token's secret, hexadecimal."""

    host_id: str
    name: str
    digest: str
    key_hash: str


class Roll(Protocol):
    """Who is in the fleet. Safe from any thread; StateError where the disk refuses."""

    def join(self, joining: Joining, *, enrolment: str, now: int) -> tuple[EnrolReason, Agent | None]:
        """Use the token up by one and take the host in, in one transaction; None where it is refused.

        A repeat (same host, key and token) uses nothing up and gives the agent as it stands.
        """
        ...

    def certified(self, host_id: str, *, enrolment: str, serial: str, key_hash: str, expires_at: int) -> bool:
        """Note the newest certificate; False where this enrolment is not active any more."""
        ...

    def agent(self, host_id: str) -> Agent | None: ...
    def agents(self) -> Sequence[Agent]:
        """Every agent there is or was, by name and host id."""
        ...

    def saw(self, seen: Mapping[str, Sighting]) -> None:
        """Note what agents last said; of hosts nobody knows nothing is kept."""
        ...


class LinkReason(StrEnum):
    """Why a connection to the broker, or a message over it, failed."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    """One side does not trust the other's certificate, or it has ended."""
    UNAUTHORIZED = "unauthorized"
    """The broker does not know this identity, or not any more."""
    FORBIDDEN = "forbidden"
    """A subject this identity may not use."""
    TIMEOUT = "timeout"
    SLOW_CONSUMER = "slow-consumer"
    CUT = "cut"
    NO_STREAM = "no-stream"
    """The broker keeps no stream there now."""
    FULL = "full"
    """The broker takes no more until the hub has stored some of it."""
    TOO_LARGE = "too-large"
    UNREADABLE = "unreadable"
    FAILED = "failed"
