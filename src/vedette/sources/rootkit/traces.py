"""What a check found, and what could not be checked and why; as records with the fields rules see.
Counterpart: `processes`, `sockets`, `kernel`, `files` and `rootcheck` find them; `source` says when they are told."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vedette.model.levels import Level
from vedette.text.times import rfc3339

DATASET = "vedette.rootkit"
FOUND, GONE, UNCHECKED, CHECKED = "trace-found", "trace-gone", "check-missing", "check-resumed"
FACTS = "facts-told"
_MOST_FACTS = 5_000
Record = dict[str, Any]
Key = tuple[str, str]
"""Kind and subject."""


class TraceKind(StrEnum):
    """What was found."""

    HIDDEN_PROCESS = "hidden-process"
    """It lives, and the listing of /proc does not show it, or shows another in its place."""
    HIDDEN_PORT = "hidden-port"
    DELETED_EXECUTABLE = "deleted-executable"
    MEMORY_EXECUTABLE = "memory-executable"
    """It never had a file (memfd_create)."""
    PRELOADED_LIBRARY = "preloaded-library"
    HIDDEN_MODULE = "hidden-module"
    UNSIGNED_MODULE = "unsigned-module"
    TAINTED_KERNEL = "tainted-kernel"
    """By a module that is not there to be seen."""
    PROMISCUOUS_INTERFACE = "promiscuous-interface"
    SET_ID_FILE = "set-id-file"
    WORLD_WRITABLE = "world-writable"
    IMMUTABLE_FILE = "immutable-file"
    AUTHORISED_KEY = "authorised-key"
    AUTHENTICATION_CHANGED = "authentication-changed"
    KNOWN_PATH = "known-path"
    KNOWN_STRINGS = "known-strings"


class Check(StrEnum):
    """What is looked at."""

    PROCESSES = "processes"
    EXECUTABLES = "executables"
    PRELOADING = "preloading"
    PORTS = "ports"
    INTERFACES = "interfaces"
    MODULES = "modules"
    FILES = "files"
    ATTRIBUTES = "attributes"
    KEYS = "keys"
    AUTHENTICATION = "authentication"
    SIGNATURES = "signatures"


class Blind(StrEnum):
    """Why something could not be checked."""

    NOT_PERMITTED = "not-permitted"
    """We may not look: it needs root, or a capability."""
    HIDEPID = "hidepid"
    """/proc is mounted so that it shows us our own processes alone."""
    NOT_THERE = "not-there"
    """This kernel or file system does not say it."""
    TOO_MUCH = "too-much"
    """There was more than is looked at."""
    UNREADABLE = "unreadable"
    SIGNATURE_UNUSABLE = "signature-unusable"
    """A line of a signature file that cannot be used."""
    FAILED = "failed"
    """The check itself failed."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One thing that was found. subject: what is told apart by, the same from look to look. fields: flat, by name."""

    kind: TraceKind
    subject: str
    level: Level
    detail: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Kind and subject."""
        return self.kind.value, self.subject


class StoppedError(Exception):
    """A look that was to end early; nothing is concluded from it."""


@dataclass(slots=True)
class Look:
    """Everything of one look. blind: what could not be checked, and how often. stop: set by another thread, ends it."""

    traces: list[Trace] = field(default_factory=list)
    blind: dict[tuple[Check, Blind], int] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """StoppedError where it is to end early; asked wherever a check takes long."""
        if self.stop.is_set():
            raise StoppedError

    def found(self, kind: TraceKind, subject: str, level: Level, detail: str, **fields: Any) -> None:
        """Add a trace; `__` in a name stands for a dot."""
        named = {name.replace("__", "."): value for name, value in fields.items() if value not in (None, "")}
        self.traces.append(Trace(kind, subject, level, detail, named))

    def missed(self, check: Check, why: Blind, times: int = 1) -> None:
        """Count what could not be checked."""
        if times:
            self.blind[check, why] = self.blind.get((check, why), 0) + times


def found_record(trace: Trace, now: int) -> Record:
    """That it is there."""
    message = f"{trace.kind.value} {trace.subject}: {trace.detail}"
    fields = {
        **trace.fields,
        "vedette.rootkit.kind": trace.kind.value,
        "vedette.rootkit.subject": trace.subject,
        "vedette.rootkit.level": trace.level.label,
        "vedette.rootkit.detail": trace.detail,
    }
    return _record(message, FOUND, now, fields)


def gone_record(key: Key, level: str, since: int, now: int) -> Record:
    """That it is there no more. level: the name of what it had; since: microseconds UTC when it was told."""
    kind, subject = key
    fields = {
        "vedette.rootkit.kind": kind,
        "vedette.rootkit.subject": subject,
        "vedette.rootkit.level": level,
        "vedette.rootkit.since": rfc3339(since),
    }
    return _record(f"{kind} {subject}: it is there no more", GONE, now, fields)


def blind_record(check: str, why: str, times: int, now: int) -> Record:
    """That something cannot be checked."""
    fields = {"vedette.rootkit.check": check, "vedette.rootkit.reason": why, "vedette.rootkit.count": times}
    return _record(f"rootkit check {check}: {why} ({times})", UNCHECKED, now, fields)


def sighted_record(check: str, why: str, now: int) -> Record:
    """That it can be checked again."""
    fields = {"vedette.rootkit.check": check, "vedette.rootkit.reason": why}
    return _record(f"rootkit check {check}: no longer {why}", CHECKED, now, fields)


def facts_record(kind: str, facts: Mapping[str, str], now: int) -> Record:
    """What is there of a kind, for the hub to hold like hosts against each other; at most 5,000, in order."""
    told = [f"{key} = {value}" for key, value in sorted(facts.items())]
    fields = {
        "vedette.rootkit.kind": kind,
        "vedette.rootkit.facts": told[:_MOST_FACTS],
        "vedette.rootkit.count": len(told),
    }
    return _record(f"{len(told)} {kind} are there", FACTS, now, fields)


def _record(message: str, action: str, now: int, fields: Mapping[str, Any]) -> Record:
    event = {"kind": "state", "category": ["host"], "action": action, "dataset": DATASET}
    record: Record = {"message": message, "@timestamp": rfc3339(now), "event": event}
    for name, value in fields.items():
        *path, last = name.split(".")
        inner = record
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return record
