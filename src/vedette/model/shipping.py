"""What leaves a host and what is known of it: numbered batches, lanes, reports, and where batches are put first.
Counterpart: `fleet` carries these between agent and hub, `store.lake` keeps them, `sources.liveness` judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from vedette.model.batch import Batch, Int64, UInt8
from vedette.model.events import Column


class Lane(StrEnum):
    """What a batch competes with for room: a flood of one must not push out the other."""

    SECURITY = "security"
    BULK = "bulk"


@dataclass(frozen=True, slots=True, order=True)
class BatchKey:
    """Which batch: `number` counts 1, 2, 3 ... per host and stream, over restarts, without gaps.

    stream: the source's name (`Origin.source`), with `#security` behind it for the records of it that go by the
    security lane while others of the same source do not. Exactly once means: once a key.
    """

    host_id: str
    stream: str
    number: int


@dataclass(frozen=True, slots=True)
class Headers:
    """The header columns of a batch, one entry a record: all that storing and skipping need.

    time: int64[n], `@timestamp` in microseconds. severity: uint8[n], syslog's 0 to 7, 255 = none.
    """

    time: Int64
    host: Column
    program: Column
    severity: UInt8


@dataclass(frozen=True, slots=True)
class Dropped:
    """Records that will never come: said instead of the batches first to last of a stream.

    records: how many, -1 where nobody counted them. reason: a `DropReason` value.
    """

    host_id: str
    stream: str
    first: int
    last: int
    records: int
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class SourceState:
    """How one stream of a host stands.

    number: of its last batch (0 = none yet). read_at: when that was read, microseconds (0 = never). position, size:
    where reading stands and how much there is, bytes or records, -1 where that means nothing. generation: as
    `Origin.generation`. alive: whether the source runs and can read. reason: why it is not, "" where it is. dropped:
    records lost so far in this session, by reason, of our own making; upstream: those that whoever wrote the log said
    it lost, likewise.
    """

    number: int = 0
    read_at: int = 0
    position: int = -1
    size: int = -1
    generation: str = ""
    alive: bool = True
    reason: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    upstream: Mapping[str, int] = field(default_factory=dict)
    loggers_stopped: Mapping[str, int] = field(default_factory=dict)
    """Loggers that said in this stream that they end and not yet that they run again, and when, microseconds."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an agent says of itself every few seconds.

    session: random, new at every start of the agent; sequence: counts its reports. started_at: of the session.
    bundle: the number of the rules and policy in force, 0 = its own. spooled: bytes that wait for the hub. stopping:
    the last report of a session that ends on purpose.
    """

    host_id: str
    host_name: str
    session: str
    sequence: int
    at: int
    started_at: int
    version: str
    sources: Mapping[str, SourceState]
    bundle: int = 0
    spooled: int = 0
    stopping: bool = False
    spool_room: int = 0
    """Bytes that may wait at most, 0 = not said."""


class Shelf(Protocol):
    """Where a batch is put before anything that rests on it may be committed; it gets its number there.

    Safe from any thread. `put` returns at once; `settled` says whether everything put so far is on the disk, and
    waits for it up to `timeout` seconds. What the disk refuses is counted, said once, and does not block for ever.
    """

    def put(self, batch: Batch) -> None:
        """Take this batch; one that is there already (read again after a restart) is left out, also in part."""
        ...

    def settled(self, timeout: float) -> bool:
        """Whether all that was put is kept, or known to be lost."""
        ...
