"""Why something was dropped, refused, not blamed or not delivered: enums, never free text.
Counterpart: counters, doctor and explain show them; each member is one row somewhere a person looks."""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """Why a record or part of it did not go all the way through the engine."""

    HEADER_UNREADABLE = "header-unreadable"
    RECORD_TOO_LONG = "record-too-long"
    LATE = "late"
    STATE_EVICTED = "state-evicted"
    NOT_A_NUMBER = "not-a-number"
    """A correlation adds up or orders numbers, and the field has none."""
    SOURCE_UNREADABLE = "source-unreadable"
    TRUNCATED_UNSEEN = "truncated-unseen"
    MULTILINE_OVERFLOW = "multiline-overflow"
    RECEIVE_BUFFER_FULL = "receive-buffer-full"
    """Datagrams the kernel dropped because they were not read in time."""
    STOPPED = "stopped"
    """Read, and not judged before the end came."""
    JSON_UNREADABLE = "json-unreadable"
    JSON_DUPLICATE_KEY = "json-duplicate-key"
    SPOOL_FULL = "spool-full"
    """The oldest went to make room while the hub was away."""
    SPOOL_REFUSED = "spool-refused"
    """The disk did not take it."""
    SPOOL_BUSY = "spool-busy"
    """The disk took longer than there was memory to wait in."""
    SPOOL_DAMAGED = "spool-damaged"
    """It was on the disk, and came back otherwise."""
    SPOOL_LOST = "spool-lost"
    """The spool was gone at a start, and what was in it nobody knows."""
    REFUSED = "refused"
    """The hub cannot read it, or may not take it."""
    TOO_LARGE = "too-large"
    """More than a message may hold."""
    DEFECT = "defect"


class BlameReason(StrEnum):
    """Whether an address may be blamed for a finding, and why not (design, section 4)."""

    ALLOWED = "allowed"
    NO_ADDRESS = "no-address"
    AMBIGUOUS = "ambiguous"
    ATTACKER_TEXT = "attacker-text"
    SOURCE_FORGEABLE = "source-forgeable"
    SOURCE_NETWORK = "source-network"


class RefusalReason(StrEnum):
    """Why a response made no decision, or a decision is not carried out."""

    NO_TARGET = "no-target"
    AMBIGUOUS = "ambiguous"
    ATTACKER_TEXT = "attacker-text"
    SOURCE_FORGEABLE = "source-forgeable"
    SOURCE_NETWORK = "source-network"
    HARD_FLOOR = "hard-floor"
    ALLOWLISTED = "allowlisted"
    RECORD_TOO_OLD = "record-too-old"
    FUSE_BLOWN = "fuse-blown"
    ALREADY_ACTIVE = "already-active"
    KNOWN_LOGIN = "known-login"
    """Somebody logged in from there lately, so that more failures are needed, or it is a prefix around them."""
    RULE_OBSERVES = "rule-observes"
    RULE_SIMULATES = "rule-simulates"


class DeliveryReason(StrEnum):
    """What became of one delivery attempt."""

    DELIVERED = "delivered"
    RATE_LIMITED = "rate-limited"
    SERVER_ERROR = "server-error"
    NETWORK_ERROR = "network-error"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    TOO_LARGE = "too-large"
    MISCONFIGURED = "misconfigured"
    EXPIRED = "expired"
    DEFECT = "defect"


class InventoryReason(StrEnum):
    """Why an inventory, or one thing in it, could not be read."""

    UNREACHABLE = "unreachable"
    """No connection, or it broke off."""
    TLS = "tls"
    """The server's certificate is not trusted."""
    SLOW = "slow"
    CUT = "cut"
    """The answer ended before its end."""
    CLOCK_SKEW = "clock-skew"
    """Refused, and the two clocks are too far apart for signatures."""
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    RATE_LIMITED = "rate-limited"
    SERVER_ERROR = "server-error"
    UNEXPECTED_STATUS = "unexpected-status"
    TOO_LARGE = "too-large"
    """Larger than the server takes, or than we do."""
    TOO_MANY = "too-many"
    NOT_JSON = "not-json"
    WRONG_SHAPE = "wrong-shape"
    """Read, and not of the form it should have."""
    WRONG_WORDS = "wrong-words"
    """What is said of ports or hosts cannot be meant so."""
    KEY_UNUSABLE = "key-unusable"
    NOT_INSTALLED = "not-installed"
    """A library that it needs is not there."""
    UNKNOWN_NAME = "unknown-name"
    TEMPLATED = "templated"
    """What it says is the outcome of a template, and nothing is run here."""
    ENCRYPTED = "encrypted"
