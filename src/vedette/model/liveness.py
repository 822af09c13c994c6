"""What can be wrong with the watching itself, and what is said when it begins and when it is over.
Counterpart: `fleet.completeness` judges, `sources.liveness` makes records of it, `rules/packs/liveness.yml` levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vedette.model.clock import HOUR

NAME = "liveness"
"""Of the source that tells it."""
DATASET = "vedette.liveness"
RESTATED = HOUR
"""How often all that stands is told again."""


class Fault(StrEnum):
    """A way in which not everything is seen. Its value is `event.action`; with `-over` behind it, its end."""

    AGENT_ABSENT = "agent-absent"
    AGENTS_ABSENT = "agents-absent"
    """Many at once: one fault, with a group of its own."""
    AGENT_STOPPED = "agent-stopped"
    """It said that it ends, and nobody retired the host."""
    AGENT_DOUBLED = "agent-doubled"
    """Two run under one identity: a cloned machine, or a stolen key."""
    SOURCE_ABSENT = "source-absent"
    """The agent does not speak of it any more."""
    SOURCE_STOPPED = "source-stopped"
    """It cannot read; the reason says why."""
    SOURCE_SHRUNK = "source-shrunk"
    STREAM_BEHIND = "stream-behind"
    """Reason `reading`: the agent does not keep up; `shipping`: what it read does not come."""
    STREAM_SILENT = "stream-silent"
    """It used to speak far more often."""
    STREAM_REWOUND = "stream-rewound"
    BATCHES_MISSING = "batches-missing"
    RECORDS_DROPPED = "records-dropped"
    UPSTREAM_DROPPED = "upstream-dropped"
    LOGGER_STOPPED = "logger-stopped"
    CLOCK_OFF = "clock-off"
    SPOOL_FILLING = "spool-filling"
    HUB_BEHIND = "hub-storage-behind"


OVER = "-over"
STANDS = "-stands"
"""Behind a fault's value: it was said before and is so still. Told every hour, for those who know nothing older."""

KEYED = frozenset({Fault.RECORDS_DROPPED, Fault.UPSTREAM_DROPPED, Fault.LOGGER_STOPPED, Fault.STREAM_BEHIND})
"""Faults of which a stream may have one a reason."""


class LivenessReason(StrEnum):
    """Why a fault is there, where nobody gave a reason of their own."""

    NO_REPORT = "no-report"
    STOPPED = "stopped"
    READING = "reading"
    SHIPPING = "shipping"
    NUMBERS = "numbers"
    POSITION = "position"
    SESSION = "session"
    SIZE = "size"
    CANNOT_READ = "cannot-read"
    # of an end
    BACK = "back"
    RETIRED = "retired"
    APART = "apart"
    """So few of a group are left that each is told alone."""
    GIVEN_UP = "given-up"
    """What is missing so long will not come; coverage goes on saying so."""
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class LivenessEvent:
    """That a fault begins, or is over.

    host_id, stream: what it is about, "" where it is about no one host or stream. group: of `AGENTS_ABSENT`. reason:
    a `LivenessReason`, a `DropReason` or the words of who reported it. since: since when it is so; at: when that was
    found; microseconds. count: records, batches, bytes, seconds or hosts, as the fault has it. hosts: names, of a group
    the first hundred. resumed: at the end of an absence, whether the agent had run all the time.
    """

    fault: Fault
    over: bool
    host_id: str
    host_name: str
    stream: str
    reason: str
    since: int
    at: int
    count: int = 0
    group: str = ""
    hosts: tuple[str, ...] = ()
    resumed: bool = False
    host_ids: tuple[str, ...] = ()
    """Of a group: those that are away, or came back and had not run all the time; the first thousand."""


class Judge(Protocol):
    """Who knows what is wrong. One thread at a time."""

    def look(self, now: int) -> Sequence[LivenessEvent]:
        """What began and what is over since the last look; said once."""
        ...

    def standing(self, now: int) -> Sequence[LivenessEvent]:
        """All that was said and is so still, each as when it began."""
        ...

    def cursor(self) -> str:
        """All that is to be remembered over a restart."""
        ...
