"""Files of the spool: frames with a checksum, one behind the other; a torn end is cut off.
Counterpart: `fleet.spool` writes and frees them, and says what is in them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import msgspec

from vedette.fleet import messages
from vedette.model.errors import StateError
from vedette.model.ranges import Ranges
from vedette.model.shipping import BatchKey, Lane

_NAME = b"vedette-spool "
HEADER = _NAME + b"1\n"
SUFFIX = ".spool"
# Bytes of the payload, CRC-32 of kind and payload, kind.
_FRAME = struct.Struct("<IIB")
# Where the index of a file begins that nothing more is added to.
_TRAILER = struct.Struct("<Q8s")
_SEALED = b"sealed 1"
OVERHEAD = _FRAME.size

Place = tuple[int, int]
"""Number of a file, offset in it: up to where was read."""
START: Place = (0, 0)


class FrameKind(IntEnum):
    """What is in a frame."""

    BATCH = 1
    DROPPED = 2
    STATE = 3
    INDEX = 4
    HELD = 5


class SpoolState(msgspec.Struct, frozen=True):
    """What must outlive the batches; begins every file. numbers, through: stream -> last given, last confirmed.

    marks: stream -> generation -> highest position kept. dropped: no more in use, since it counts
    within a session. bases: stream -> what
    is added to its numbers here to get those the hub knows. asking: the hub was not heard yet of what it knows. lanes:
    stream -> the lane it goes by. losses: how often a lane was lost since the hub was heard.
    """

    numbers: dict[str, int]
    through: dict[str, int]
    marks: dict[str, dict[str, int]]
    dropped: dict[str, dict[str, int]]
    bases: dict[str, int] = {}
    asking: bool = False
    lanes: dict[str, str] = {}
    losses: int = 0


@dataclass(slots=True)
class Segment:
    """One file. size: bytes that are synced. batches, said: stream -> numbers in it, and those said to be lost."""

    number: int
    path: Path
    size: int = len(HEADER)
    batches: dict[str, Ranges] = field(default_factory=dict)
    said: dict[str, Ranges] = field(default_factory=dict)
    damaged: bool = False

    def note(self, kind: FrameKind, stream: str, first: int, last: int) -> None:
        """Have it hold a batch, or word of a gap."""
        held = self.batches if kind is FrameKind.BATCH else self.said
        held.setdefault(stream, Ranges()).add(first, last)


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame and where it stands; `bad` says that what stood before it did not check out."""

    kind: FrameKind
    payload: bytes
    start: int
    end: int
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A packed message as it is to be shipped: a batch, or a gap said in its place.

    place: hand it to `read` to go on behind it. key: of the batch; of a gap, its last number. records: in it.
    """

    place: Place
    lane: Lane
    key: BatchKey
    gap: bool
    records: int
    packed: bytes


_state = msgspec.msgpack.Decoder(SpoolState)
_held = msgspec.msgpack.Decoder(tuple[dict[str, list[tuple[int, int]]], dict[str, list[tuple[int, int]]]])


def frame(kind: FrameKind, payload: bytes) -> bytes:
    """The bytes of a frame."""
    check = zlib.crc32(payload, zlib.crc32(bytes([kind])))
    return _FRAME.pack(len(payload), check, kind) + payload


def state_frame(state: SpoolState) -> bytes:
    """The frame that begins a file."""
    return frame(FrameKind.STATE, msgspec.msgpack.encode(state))


def read_state(payload: bytes) -> SpoolState:
    """ValueError where these bytes are none."""
    try:
        return _state.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def end_of(segment: Segment, size: int) -> bytes:
    """What closes a file of so many bytes, so that it need not be read to know what is in it."""
    last = {stream: found.last for held in (segment.said, segment.batches) for stream, found in held.items()}
    held = tuple({stream: list(found) for stream, found in each.items()} for each in (segment.batches, segment.said))
    frames = frame(FrameKind.INDEX, msgspec.msgpack.encode(last)) + frame(FrameKind.HELD, msgspec.msgpack.encode(held))
    return frames + _TRAILER.pack(size, _SEALED)


def frames(data: bytes, offset: int = 0, *, resync: bool = False) -> Iterator[Frame]:
    """The whole frames of `data` from `offset` on, up to the first that is not; those behind that too with `resync`.

    A frame whose payload alone is damaged is left out where the next one stands right behind it.
    """
    bad = False
    while offset + OVERHEAD <= len(data):
        size, check, kind = _FRAME.unpack_from(data, offset)
        end = offset + OVERHEAD + size
        if end > len(data) or size > messages.LIMIT + messages.LIMIT:
            return
        payload = data[offset + OVERHEAD : end]
        whole = kind in FrameKind.__members__.values() and zlib.crc32(payload, zlib.crc32(bytes([kind]))) == check
        if whole:
            yield Frame(FrameKind(kind), payload, offset, end, bad)
        elif not resync:
            return
        bad = not whole
        offset = end


def entry_of(found: Frame, lane: Lane, place: Place, bases: Mapping[str, int]) -> Entry | None:
    """What is to be shipped of this frame, if anything is, with what is added to the numbers of its stream."""
    if found.kind is FrameKind.BATCH:
        head = messages.head_of(found.payload)
        host_id, stream, number, records = head.host_id, head.stream, head.number, head.rows
    elif found.kind is FrameKind.DROPPED:
        gap = messages.unpack_dropped(found.payload)
        host_id, stream, number, records = gap.host_id, gap.stream, gap.last, gap.records
    else:
        return None
    more = bases.get(stream, 0)
    packed = messages.renumbered(found.payload, more) if more else found.payload
    return Entry(
        place, lane, BatchKey(host_id, stream, number + more), found.kind is not FrameKind.BATCH, records, packed
    )


def first_size(data: bytes) -> int:
    """How many bytes the frame at the beginning has, by its own word; 0 where not even that is there."""
    return OVERHEAD + int(_FRAME.unpack_from(data)[0]) if len(data) >= OVERHEAD else 0


def note(segment: Segment, found: Iterable[Frame]) -> None:
    """Have the segment hold what is in these frames."""
    for each in found:
        if each.kind is FrameKind.BATCH:
            head = messages.head_of(each.payload)
            segment.note(each.kind, head.stream, head.number, head.number)
        elif each.kind is FrameKind.DROPPED:
            gap = messages.unpack_dropped(each.payload)
            segment.note(each.kind, gap.stream, gap.first, gap.last)


def part(path: Path, start: int, size: int) -> bytes:
    """So many bytes of a file, less at its end."""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, start)


def begin(path: Path, state: bytes) -> int:
    """A new file with its header, synced: a descriptor to append by. OSError as the system gives it; then no file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        write_all(descriptor, HEADER + state)
        os.fdatasync(descriptor)
        sync_folder(path.parent)
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def write_all(descriptor: int, data: bytes) -> None:
    """All of it, or OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """So that names in it outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ranges(held: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, Ranges]:
    return {stream: Ranges(found) for stream, found in held.items()}


def opened(path: Path, number: int) -> tuple[Segment, bool]:
    """A file of an earlier start, and whether its end was torn; it is cut there. ValueError where it is none of ours.

    StateError where a newer version wrote it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        name = file.read(len(HEADER))
        if name != HEADER:
            if len(name) == len(HEADER) and name.startswith(_NAME):
                raise StateError(
                    f"{path}: written by a newer version", hint="run that version, or move the folder away"
                )
            if HEADER.startswith(name):
                return Segment(number, path), True
            raise ValueError("not a file of the spool")
        if size >= len(HEADER) + _TRAILER.size:
            file.seek(size - _TRAILER.size)
            start, mark = _TRAILER.unpack(file.read())
            if mark == _SEALED and len(HEADER) <= start < size:
                file.seek(start)
                index = list(frames(file.read(size - start)))
                if [each.kind for each in index] == [FrameKind.INDEX, FrameKind.HELD]:
                    batches, said = _held.decode(index[1].payload)
                    return Segment(number, path, start, _ranges(batches), _ranges(said)), False
                if index and index[0].kind is FrameKind.INDEX:
                    # Of a version that did not say more there.
                    size = start
        file.seek(0)
        data = file.read(size)
    segment = Segment(number, path)
    found = list(frames(data, len(HEADER)))
    note(segment, found)
    segment.size = found[-1].end if found else len(HEADER)
    torn = segment.size < size
    if torn:
        os.truncate(path, segment.size)
    return segment, torn
