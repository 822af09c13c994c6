"""What agent and hub say to each other, as bytes with name and version: batches, gaps, reports and confirms.
Counterpart: `fleet.spool` keeps packed batches, `fleet.transport` carries them, the hub unpacks them for its lake."""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import zstandard

from vedette.model.batch import Batch, GivenHeader, Int64, Origin, RecordFormat, Trust, UInt8
from vedette.model.shipping import BatchKey, Dropped, Report

LIMIT = 8 * 1024 * 1024
"""Bytes a packed message may have; a broker must let that much pass."""
RAW_LIMIT = 32 * 1024 * 1024
"""Bytes it may unpack to."""
BLOCK_LIMIT = 4 * 1024 * 1024
"""Bytes of a block up to which a packed batch stays below `LIMIT` whatever is in it; `fleet.spool` cuts there."""
ROWS_LIMIT = 100_000
"""Records of a batch; up to so many the same holds for all that is kept beside the block."""
SAID_LIMIT = 6 * 1024 * 1024
"""Bytes that a report, gap or confirm unpacks to: enough for 20,000 streams; each costs some fifty in memory."""
DROPPED_LIMIT = 1000
"""Reasons a batch may name."""
TEXT_LIMIT = 65_536
"""Bytes of a name, a cursor or any other text that is not a record."""
_LEVEL = 3
_INT64 = 1 << 63
_NAME = b"vedette"
_VERSION = 1
# Name, version, kind, bytes of the head.
_ENVELOPE = struct.Struct("<7sBBH")
_T = TypeVar("_T")


class MessageError(Exception):
    """Bytes that are no message of ours. reason: which check they did not pass."""

    def __init__(self, reason: MessageReason, words: str = "") -> None:
        super().__init__(f"{reason}: {words}" if words else str(reason))
        self.reason = reason


class MessageReason(StrEnum):
    """Why bytes are not taken."""

    NOT_OURS = "not-ours"
    NEWER = "newer"
    TOO_LARGE = "too-large"
    DAMAGED = "damaged"
    """Checksum, or form of what is inside."""
    WRONG = "wrong"
    """Read, and it cannot be meant: offsets outside the block, a negative number."""


class Kind(StrEnum):
    """What a message is; the first byte of its value is what stands in the envelope."""

    BATCH = "batch"
    DROPPED = "dropped"
    REPORT = "report"
    CONFIRM = "confirm"


_KINDS = {ord(kind.value[0]): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Confirm:
    """What the hub has of a host, stored and synced.

    through: stream -> last number without a gap before it (a gap that was said is none). beyond: stream -> ranges
    (first, last) that are there behind a gap. wants: stream -> ranges that shall be sent again at once. last: stream
    -> highest number that is there, in an answer to a question.
    """

    host_id: str
    at: int
    through: Mapping[str, int]
    beyond: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    wants: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    last: Mapping[str, int] = field(default_factory=dict)

    def known(self) -> dict[str, int]:
        """Stream -> highest number that it speaks of, as there."""
        ends = {stream: found[-1][1] for stream, found in self.beyond.items() if found}
        streams = self.through.keys() | ends.keys() | self.last.keys()
        return {name: max(self.through.get(name, 0), ends.get(name, 0), self.last.get(name, 0)) for name in streams}


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a packed batch without unpacking it. last: its highest position, -1 without a cursor."""

    host_id: str
    stream: str
    number: int
    rows: int
    raw: int
    read_at: int
    generation: str
    last: int


# Checked before room is made for what is in them.
_Names = Annotated[list[bytes], msgspec.Meta(max_length=ROWS_LIMIT)]
_Counts = Annotated[dict[str, int], msgspec.Meta(max_length=DROPPED_LIMIT)]


class _Body(msgspec.Struct, frozen=True, array_like=True):
    source: str
    number: int
    block: bytes
    first: int
    lengths: bytes
    gaps: bytes
    moving: bool
    position: int
    positions: bytes
    format: str
    trust: int | bytes
    header: tuple[tuple[int, bytes], _Names, bytes, _Names, bytes, bytes] | None
    timezone: str
    year: int
    spooled: bool
    cursor: str
    dropped: _Counts
    rows: int = -1
    """The head is outside the checksum; -1 where a version before said nothing."""


_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(Head)
_body = msgspec.msgpack.Decoder(_Body)
_others: dict[Kind, msgspec.msgpack.Decoder[Any]] = {
    Kind.DROPPED: msgspec.msgpack.Decoder(Dropped),
    Kind.REPORT: msgspec.msgpack.Decoder(Report),
    Kind.CONFIRM: msgspec.msgpack.Decoder(Confirm),
}
_threads = threading.local()


def _compressor() -> zstandard.ZstdCompressor:
    # Not to be shared among threads, and not cheap to make.
    if not hasattr(_threads, "compressor"):
        _threads.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    found: zstandard.ZstdCompressor = _threads.compressor
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_threads, "decompressor"):
        _threads.decompressor = zstandard.ZstdDecompressor()
    found: zstandard.ZstdDecompressor = _threads.decompressor
    return found


# ------------------------------------------------------------------------------------------------ columns of numbers


def _narrow(values: Int64) -> bytes:
    """int64[n] as its smallest value, a width (0, 1, 2, 4, 8 bytes) and n differences to it of that width."""
    if not len(values):
        return b""
    low, high = int(values.min()), int(values.max())
    span = high - low
    front = low.to_bytes(8, "little", signed=True)
    if not span:
        return front + b"\0"
    width = next(width for width in (1, 2, 4, 8) if span < 1 << 8 * width)
    with np.errstate(over="ignore"):
        rest = (values - np.int64(low)).astype(f"<u{width}")
    return front + bytes([width]) + rest.tobytes()


def _widen(data: bytes, n: int) -> Int64:
    """What `_narrow` was given; ValueError where these bytes do not hold n numbers."""
    if not n:
        if data:
            raise ValueError("numbers of no records")
        return np.empty(0, dtype=np.int64)
    width = data[8] if len(data) >= 9 else -1
    if width not in (0, 1, 2, 4, 8) or len(data) != 9 + width * n:
        raise ValueError("not as many numbers as records")
    low = np.int64(int.from_bytes(data[:8], "little", signed=True))
    if not width:
        return np.full(n, low, dtype=np.int64)
    with np.errstate(over="ignore"):
        return np.asarray(np.frombuffer(data, f"<u{width}", n, 9).astype(np.int64) + low, dtype=np.int64)


def _differences(values: Int64) -> bytes:
    with np.errstate(over="ignore"):
        return _narrow(np.diff(values))


def _summed(first: int, data: bytes, n: int) -> Int64:
    """int64[n] from its first value and its differences."""
    values = np.empty(n, dtype=np.int64)
    if n:
        values[0] = first
        values[1:] = _widen(data, n - 1)
        np.cumsum(values, out=values)
    elif data:
        raise ValueError("numbers of no records")
    return values


def _texts(values: list[str]) -> tuple[list[bytes], bytes]:
    """n strings as their distinct values and which of them each is."""
    codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
    rows = np.fromiter(map(codes.__getitem__, values), dtype=np.int64, count=len(values))
    return [value.encode("utf-8", "surrogatepass") for value in codes], _narrow(rows)


def _untexts(distinct: list[bytes], data: bytes, n: int) -> list[str]:
    codes = _widen(data, n)
    if n and not 0 <= int(codes.min()) <= int(codes.max()) < len(distinct):
        raise ValueError("a text that is not there")
    texts = [value.decode("utf-8", "surrogatepass") for value in distinct]
    return list(map(texts.__getitem__, codes.tolist()))


# ------------------------------------------------------------------------------------------------ batches


def pack(key: BatchKey, batch: Batch) -> bytes:
    """A batch with its key. MessageError where it would be larger than the limits; cut it before."""
    n = len(batch)
    if n > ROWS_LIMIT:
        raise MessageError(MessageReason.TOO_LARGE, f"{n} records")
    lengths = batch.ends - batch.starts
    gaps = batch.starts[1:] - batch.ends[:-1]
    with np.errstate(over="ignore"):
        apart = batch.positions - batch.starts
    moving = bool(n) and bool((apart == apart[0]).all())
    header = None
    if batch.header is not None:
        given = batch.header
        hosts, programs = _texts(given.host), _texts(given.program)
        time = (int(given.time[0]) if n else 0, _differences(given.time))
        header = (time, *hosts, *programs, _narrow(given.pid))
    body = _Body(
        source=batch.origin.source,
        number=batch.number,
        block=batch.block,
        first=int(batch.starts[0]) if n else 0,
        lengths=_narrow(lengths),
        gaps=_narrow(gaps),
        moving=moving,
        position=int(batch.positions[0]) if n else 0,
        positions=b"" if moving else _differences(batch.positions),
        format=batch.format.value,
        trust=int(batch.trust) if isinstance(batch.trust, Trust) else batch.trust.tobytes(),
        header=header,
        timezone=batch.timezone,
        year=batch.year,
        spooled=batch.spooled,
        # Only who read it goes on from a cursor; where a source remembers much, it stays there.
        cursor=batch.cursor if len(batch.cursor) <= TEXT_LIMIT else "",
        dropped=batch.dropped,
        rows=n,
    )
    last = int(batch.positions.max()) if n and batch.cursor else -1
    head = _encode(
        Head(key.host_id, key.stream, key.number, n, len(batch.block), batch.read_at, batch.origin.generation, last)
    )
    raw = _encode(body)
    if len(raw) > RAW_LIMIT or len(head) > 0xFFFF:
        raise MessageError(MessageReason.TOO_LARGE, f"{len(raw)} bytes")
    return _bounded(_ENVELOPE.pack(_NAME, _VERSION, ord("b"), len(head)) + head + _compressor().compress(raw))


def unpack(data: bytes) -> tuple[BatchKey, Batch]:
    """The batch and its key, byte for byte what was packed; MessageError for anything else, whatever the bytes are."""
    kind, head, rest = _open(data)
    if kind is not Kind.BATCH:
        raise MessageError(MessageReason.WRONG, f"a {kind}")
    raw = _decompressed(rest, RAW_LIMIT)
    try:
        body = _body.decode(raw)
        return BatchKey(head.host_id, head.stream, head.number), _batch(head, body)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(MessageReason.DAMAGED, str(error)[:200]) from None


def head_of(data: bytes) -> Head:
    """What stands in front of a packed batch; MessageError for anything else. The rest is not looked at."""
    kind, head, _ = _open(data)
    if kind is not Kind.BATCH:
        raise MessageError(MessageReason.WRONG, f"a {kind}")
    return head


def renumbered(data: bytes, more: int) -> bytes:
    """A packed batch, or a gap, with so much added to its numbers; MessageError for anything else."""
    if kind_of(data) is Kind.DROPPED:
        gap = unpack_dropped(data)
        return pack_dropped(replace(gap, first=gap.first + more, last=gap.last + more))
    _, head, rest = _open(data)
    front = _encode(msgspec.structs.replace(head, number=head.number + more))
    return _bounded(_ENVELOPE.pack(_NAME, _VERSION, ord("b"), len(front)) + front + rest)


def _batch(head: Head, body: _Body) -> Batch:
    n = head.rows
    if (
        head.raw != len(body.block)
        or body.rows not in (n, -1)
        or not all(-_INT64 <= one < _INT64 for one in (body.first, body.position))
    ):
        raise ValueError("not what its head says")
    if not (0 <= body.number < _INT64 and 0 <= body.year <= 9999 and -_INT64 <= head.read_at < _INT64):
        raise ValueError("a number that cannot be")
    if any(len(text) > TEXT_LIMIT for text in (body.source, body.timezone, body.cursor)):
        raise ValueError("a text that is too long")
    if any(not 0 <= count < _INT64 for count in body.dropped.values()):
        raise ValueError("a count that cannot be")
    lengths = _widen(body.lengths, n)
    gaps = _widen(body.gaps, max(n - 1, 0))
    starts = np.empty(n, dtype=np.int64)
    if n:
        starts[0] = body.first
        starts[1:] = lengths[:-1] + gaps
        np.cumsum(starts, out=starts)
    ends = starts + lengths
    if n and not (int(lengths.min()) >= 0 and int(starts.min()) >= 0 and int(ends.max()) <= len(body.block)):
        raise ValueError("a record outside the block")
    if body.moving:
        with np.errstate(over="ignore"):
            positions = starts + (np.int64(body.position) - np.int64(body.first))
    else:
        positions = _summed(body.position, body.positions, n)
    if isinstance(body.trust, bytes):
        levels = np.frombuffer(body.trust, dtype=np.uint8)
        if len(levels) != n or (n and int(levels.max()) > max(Trust)):
            raise ValueError("not a trust for each record")
        trust: Trust | UInt8 = levels
    else:
        trust = Trust(body.trust)
    header = None
    if body.header is not None:
        (first, times), hosts, host_codes, programs, program_codes, pids = body.header
        header = GivenHeader(
            time=_summed(first, times, n),
            host=_untexts(hosts, host_codes, n),
            program=_untexts(programs, program_codes, n),
            pid=_widen(pids, n),
        )
    return Batch(
        origin=Origin(head.host_id, body.source, head.generation),
        number=body.number,
        block=body.block,
        starts=starts,
        ends=ends,
        positions=positions,
        read_at=head.read_at,
        format=RecordFormat(body.format),
        trust=trust,
        header=header,
        timezone=body.timezone,
        year=body.year,
        spooled=body.spooled,
        cursor=body.cursor,
        dropped=body.dropped,
    )


# ------------------------------------------------------------------------------------------------ the others


def pack_dropped(dropped: Dropped) -> bytes:
    """A gap that is known."""
    return _packed(Kind.DROPPED, dropped)


def pack_report(report: Report) -> bytes:
    """What an agent says of itself."""
    return _packed(Kind.REPORT, report)


def pack_confirm(confirm: Confirm) -> bytes:
    """What the hub has."""
    return _packed(Kind.CONFIRM, confirm)


def unpack_dropped(data: bytes) -> Dropped:
    """MessageError for anything else."""
    dropped = _unpacked(Kind.DROPPED, data, Dropped)
    if not (1 <= dropped.first <= dropped.last < _INT64 and -1 <= dropped.records < _INT64):
        raise MessageError(MessageReason.WRONG, "a range that cannot be")
    return dropped


def unpack_report(data: bytes) -> Report:
    """MessageError for anything else."""
    return _unpacked(Kind.REPORT, data, Report)


def unpack_confirm(data: bytes) -> Confirm:
    """MessageError for anything else."""
    return _unpacked(Kind.CONFIRM, data, Confirm)


def unpack_event(data: bytes) -> tuple[BatchKey, Batch] | Dropped:
    """What comes over a lane: a batch, or a gap said in its place."""
    return unpack_dropped(data) if kind_of(data) is Kind.DROPPED else unpack(data)


def kind_of(data: bytes) -> Kind:
    """What a message is, by its envelope; MessageError where it is none that we read."""
    if len(data) < _ENVELOPE.size:
        raise MessageError(MessageReason.NOT_OURS)
    name, version, kind, _ = _ENVELOPE.unpack_from(data)
    if name != _NAME:
        raise MessageError(MessageReason.NOT_OURS)
    if version > _VERSION:
        raise MessageError(MessageReason.NEWER, f"version {version}")
    if len(data) > LIMIT:
        raise MessageError(MessageReason.TOO_LARGE, f"{len(data)} bytes")
    if version < 1 or kind not in _KINDS:
        raise MessageError(MessageReason.NOT_OURS)
    return _KINDS[kind]


def _open(data: bytes) -> tuple[Kind, Head, memoryview]:
    kind = kind_of(data)
    if kind is not Kind.BATCH:
        raise MessageError(MessageReason.WRONG, f"a {kind}")
    _, _, _, size = _ENVELOPE.unpack_from(data)
    end = _ENVELOPE.size + size
    if len(data) < end:
        raise MessageError(MessageReason.DAMAGED, "cut in its head")
    try:
        head = _head.decode(data[_ENVELOPE.size : end])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MessageError(MessageReason.DAMAGED, str(error)[:200]) from None
    texts = (head.host_id, head.stream, head.generation)
    if not (1 <= head.number < _INT64 and 0 <= head.rows <= ROWS_LIMIT and -_INT64 <= head.last < _INT64):
        raise MessageError(MessageReason.WRONG, "a number that cannot be")
    if any(len(text) > TEXT_LIMIT for text in texts) or not all(texts[:2]):
        raise MessageError(MessageReason.WRONG, "a name that cannot be")
    return kind, head, memoryview(data)[end:]


def _decompressed(data: memoryview, most: int) -> bytes:
    try:
        size = zstandard.get_frame_parameters(data).content_size
        # A frame that does not say its size has the largest number there is.
        if size > most:
            raise MessageError(MessageReason.TOO_LARGE, "unpacked")
        return _decompressor().decompress(data, max_output_size=most, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MessageError(MessageReason.DAMAGED, str(error)[:200]) from None


def _packed(kind: Kind, message: Dropped | Report | Confirm) -> bytes:
    raw = _encode(message)
    if len(raw) > SAID_LIMIT:
        raise MessageError(MessageReason.TOO_LARGE, f"{len(raw)} bytes")
    data = _compressor().compress(raw)
    return _bounded(_ENVELOPE.pack(_NAME, _VERSION, ord(kind.value[0]), 0) + data)


def _unpacked(kind: Kind, data: bytes, shape: type[_T]) -> _T:
    if kind_of(data) is not kind:
        raise MessageError(MessageReason.WRONG, f"no {kind}")
    raw = _decompressed(memoryview(data)[_ENVELOPE.size :], SAID_LIMIT)
    try:
        message = _others[kind].decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MessageError(MessageReason.DAMAGED, str(error)[:200]) from None
    if not isinstance(message, shape):
        raise MessageError(MessageReason.DAMAGED)
    return message


def _bounded(data: bytes) -> bytes:
    if len(data) > LIMIT:
        raise MessageError(MessageReason.TOO_LARGE, f"{len(data)} bytes")
    return data
