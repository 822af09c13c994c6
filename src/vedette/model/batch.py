"""A run of records from one source, kept as one block of bytes plus offsets.
Counterpart: `sources` make batches, `parsers` read them, `detections` work on them whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

REPLAY_HOST_ID = "00000000-0000-0000-0000-000000000000"


class Trust(IntEnum):
    """How sure it is that a record comes from whom it names (design, section 4); lowest wins."""

    NETWORK = 0
    FORGEABLE = 1
    ATTESTED = 2


class RecordFormat(StrEnum):
    """How the bytes of a record are to be read."""

    SYSLOG = "syslog"
    """One line with a syslog header (RFC 3164, RFC 5424 or RFC 3339 as rsyslog writes it)."""
    MESSAGE = "message"
    """The bare message; the header columns were given by the source (journal)."""
    JSON = "json"
    """One JSON object."""
    AUDIT = "audit"
    """Linux audit: all records of one event, each on a line of its own."""
    ACCESS = "access"
    """One line of a web server's access or error log."""


def lines_of(records: Sequence[bytes]) -> tuple[bytes, Int64, Int64]:
    """The records as one block, a newline behind each, and where each starts and, before that newline, ends."""
    lengths = np.fromiter(map(len, records), np.int64, len(records))
    ends = np.cumsum(lengths) + np.arange(len(records))
    return b"".join(record + b"\n" for record in records), ends - lengths, ends


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the records of a batch were read; with a position it makes a record id.

    `generation` counts up at rotation or truncation (file), or is the journal's sequence id.
    """

    host_id: str
    source: str
    generation: str = "0"

    def record_id(self, position: int) -> str:
        """host id / source name / position, as evidence is written."""
        return f"{self.host_id}/{self.source}/{self.generation}:{position}"


@dataclass(frozen=True, slots=True)
class GivenHeader:
    """Header columns that a source already knows, one entry a record (journal: trusted fields).

    time: int64[n] microseconds; host, program: n strings; pid: int64[n], -1 = unknown.
    """

    time: Int64
    host: list[str]
    program: list[str]
    pid: Int64


@dataclass(frozen=True, slots=True)
class Batch:
    """`n` records; record i is `block[starts[i]:ends[i]]`, line end not included.

    positions: int64[n], byte offset of the first byte (file, stdin), journal sequence number, or line
    number (replay). trust: one value, or uint8[n] where records differ. read_at: `event.created` of the
    batch, microseconds. cursor: opaque text the source resumes from once this batch is committed; ""
    where there is nothing to resume. timezone: IANA name or "UTC" that zoneless header times are read in.
    year: the year to begin guessing from (0: from read_at). spooled: delivered late on purpose, so the
    skew check is off.
    """

    origin: Origin
    number: int
    block: bytes
    starts: Int64
    ends: Int64
    positions: Int64
    read_at: int
    format: RecordFormat = RecordFormat.SYSLOG
    trust: Trust | UInt8 = Trust.FORGEABLE
    header: GivenHeader | None = None
    timezone: str = "UTC"
    year: int = 0
    spooled: bool = False
    cursor: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    """Records the source itself had to drop since its last batch, by DropReason."""

    def __len__(self) -> int:
        return len(self.starts)

    def raw(self, row: int) -> bytes:
        """The bytes of record `row`."""
        return self.block[int(self.starts[row]) : int(self.ends[row])]

    def trust_of(self, row: int) -> Trust:
        """The trust of record `row`."""
        return self.trust if isinstance(self.trust, Trust) else Trust(int(self.trust[row]))


def split_lines(block: bytes) -> tuple[Int64, Int64]:
    """Start and end offsets of the lines of `block`; a `\\r` before the `\\n` is not part of a line.

    The last line counts with or without its newline; empty lines are kept (positions are line numbers).
    """
    array = np.frombuffer(block, dtype=np.uint8)
    newlines = np.flatnonzero(array == 10).astype(np.int64)
    if len(block) and (not len(newlines) or newlines[-1] != len(block) - 1):
        newlines = np.append(newlines, np.int64(len(block)))
    starts = np.empty(len(newlines), dtype=np.int64)
    if len(newlines):
        starts[0] = 0
        starts[1:] = newlines[:-1] + 1
    ends = newlines
    if len(ends):
        last = np.maximum(ends - 1, 0)
        carriage = (ends > starts) & (array[last] == 13)
        ends = ends - carriage
    return starts, ends
