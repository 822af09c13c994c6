"""Packed messages come back as they were, and hostile bytes are refused by one error.
Counterpart: vedette.fleet.messages."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.fleet import messages
from vedette.fleet.messages import Confirm, MessageError, MessageReason
from vedette.model.batch import Batch, GivenHeader, Origin, RecordFormat, Trust
from vedette.model.shipping import BatchKey, Dropped, Report, SourceState

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=8) | st.just("\udcff")


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    records = draw(st.lists(st.binary(max_size=30), max_size=8))
    n = len(records)
    apart = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    block, starts = b"", []
    for record, gap in zip(records, apart, strict=True):
        block += b"\n" * gap
        starts.append(len(block))
        block += record
    begin = np.array(starts, dtype=np.int64)
    numbers = st.lists(INT64, min_size=n, max_size=n).map(lambda values: np.array(values, dtype=np.int64))
    texts = st.lists(TEXT, min_size=n, max_size=n)
    header = GivenHeader(draw(numbers), draw(texts), draw(texts), draw(numbers)) if draw(st.booleans()) else None
    levels = st.lists(st.integers(0, 2), min_size=n, max_size=n).map(lambda values: np.array(values, dtype=np.uint8))
    return Batch(
        origin=Origin("host", "journal", draw(st.text("abc0", max_size=3))),
        number=draw(st.integers(0, 2**62)),
        block=block + draw(st.sampled_from([b"", b"\n"])),
        starts=begin,
        ends=begin + np.array([len(record) for record in records], dtype=np.int64),
        positions=begin + 7 if draw(st.booleans()) else draw(numbers),
        read_at=draw(INT64),
        format=draw(st.sampled_from(RecordFormat)),
        trust=draw(st.sampled_from(Trust) | levels),
        header=header,
        timezone="Europe/Berlin",
        year=draw(st.integers(0, 9999)),
        spooled=draw(st.booleans()),
        cursor=draw(st.text("abc", max_size=3)),
        dropped=draw(st.dictionaries(st.text("ab", min_size=1, max_size=3), st.integers(0, 9), max_size=2)),
    )


def same(one: Batch, other: Batch) -> bool:
    plain = ("origin", "number", "block", "read_at", "format", "timezone", "year", "spooled", "cursor", "dropped")
    columns = [(getattr(one, name), getattr(other, name)) for name in ("starts", "ends", "positions")]
    if isinstance(one.trust, Trust) or isinstance(other.trust, Trust):
        if one.trust is not other.trust:
            return False
    else:
        columns.append((one.trust, other.trust))
    if one.header is None or other.header is None:
        if one.header is not other.header:
            return False
    else:
        columns += [(one.header.time, other.header.time), (one.header.pid, other.header.pid)]
        if (one.header.host, one.header.program) != (other.header.host, other.header.program):
            return False
    return all(getattr(one, name) == getattr(other, name) for name in plain) and all(
        left.dtype == right.dtype and np.array_equal(left, right) for left, right in columns
    )


KEY = BatchKey("host", "journal", 3)


def lines(n: int = 50) -> Batch:
    block = b"".join(b"<34>Oct 11 22:14:15 web sshd[1]: line %d\n" % row for row in range(n))
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    return Batch(Origin("host", "journal", "2"), 9, block, starts, ends, starts + 1000, 5, cursor="there")


@settings(max_examples=60, deadline=None)
@given(batches())
def test_a_batch_comes_back_byte_for_byte(batch: Batch) -> None:
    key, back = messages.unpack(messages.pack(KEY, batch))
    assert key == KEY
    assert same(batch, back)
    assert messages.pack(key, back) == messages.pack(KEY, batch)


def test_the_head_is_read_without_the_rest() -> None:
    batch = lines()
    packed = messages.pack(KEY, batch)
    head = messages.head_of(packed[:100])
    assert (head.stream, head.number, head.rows, head.raw) == ("journal", 3, 50, len(batch.block))
    assert (head.generation, head.last, head.read_at) == ("2", int(batch.positions[-1]), 5)
    assert len(packed) < len(batch.block) / 4


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60), st.sampled_from([b"", b"vedette\x01b", b"vedette\x01b\x03\x00", b"vedette\x01r\x00\x00"])
)
def test_any_bytes_are_refused_by_our_own_error(data: bytes, front: bytes) -> None:
    for read in (messages.unpack, messages.unpack_event, messages.unpack_report, messages.head_of):
        with pytest.raises(MessageError):
            read(front + data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_byte_gives_the_error_or_a_batch_in_bounds(data: st.DataObject) -> None:
    packed = bytearray(messages.pack(KEY, lines(5)))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    try:
        _, batch = messages.unpack(bytes(packed))
    except MessageError:
        return
    # Only the head is outside the checksum.
    assert len(batch) == 5
    assert int(batch.ends.max()) <= len(batch.block)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"first": -1}, MessageReason.DAMAGED),
        ({"first": 10**6}, MessageReason.DAMAGED),
        ({"first": 2**63}, MessageReason.DAMAGED),
        ({"trust": 7}, MessageReason.DAMAGED),
        ({"trust": b"\x09" * 5}, MessageReason.DAMAGED),
        ({"trust": b"\x01"}, MessageReason.DAMAGED),
        ({"format": "../x"}, MessageReason.DAMAGED),
        ({"dropped": {"late": -1}}, MessageReason.DAMAGED),
        ({"cursor": "x" * 70_000}, MessageReason.DAMAGED),
        ({"lengths": b"\xff" * 8 + b"\0"}, MessageReason.DAMAGED),
        ({"gaps": b"\xff" * 7 + b"\x7f\0"}, MessageReason.DAMAGED),
        ({"header": ((0, b""), [], b"\0" * 9, [], b"\0" * 9, b"\0" * 9)}, MessageReason.DAMAGED),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, object], reason: MessageReason) -> None:
    packed = messages.pack(KEY, lines(5))
    size = int.from_bytes(packed[9:11], "little")
    front, rest = packed[: 11 + size], packed[11 + size :]
    body = messages._body.decode(messages._decompressed(memoryview(rest), messages.RAW_LIMIT))
    wrong = {name: getattr(body, name) for name in body.__struct_fields__} | change
    again = front + messages._compressor().compress(messages._encode(list(wrong.values())))
    with pytest.raises(MessageError) as error:
        messages.unpack(again)
    assert error.value.reason is reason


def test_a_bomb_and_a_newer_version_and_what_is_too_large_are_refused() -> None:
    bomb = messages._ENVELOPE.pack(b"vedette", 1, ord("r"), 0) + messages._compressor().compress(bytes(64 << 20))
    for data, reason in (
        (bomb, MessageReason.TOO_LARGE),
        (b"vedette\x02b\0\0", MessageReason.NEWER),
        (b"vedette\x01r\0\0" + bytes(messages.LIMIT), MessageReason.TOO_LARGE),
    ):
        with pytest.raises(MessageError) as error:
            messages.unpack_report(data)
        assert error.value.reason is reason


def packed_as(kind: bytes, raw: bytes) -> bytes:
    return messages._ENVELOPE.pack(b"vedette", 1, kind[0], 0) + messages._compressor().compress(raw)


def test_a_few_bytes_that_would_fill_the_memory_are_refused_before_there_is_room_made() -> None:
    """Numbers of no width, and short things in great number, are small on the way."""
    zeros = bytes(9)
    many = messages.ROWS_LIMIT + 1
    body = messages._Body(
        source="s",
        number=1,
        block=b"",
        first=0,
        lengths=zeros,
        gaps=zeros,
        moving=True,
        position=0,
        positions=b"",
        format="syslog",
        trust=0,
        header=None,
        timezone="UTC",
        year=2026,
        spooled=False,
        cursor="",
        dropped={},
        rows=many,
    )
    names = ((0, zeros), [b"ab"] * many, zeros, [b"ab"], zeros, zeros)
    for rows, change in (
        (many, {}),
        (messages.RAW_LIMIT, {"rows": messages.RAW_LIMIT}),
        (2, {"rows": 2, "header": names}),
        (2, {"rows": 2, "dropped": {str(n): 1 for n in range(messages.DROPPED_LIMIT + 1)}}),
    ):
        head = messages._encode(messages.Head("h", "s", 1, rows, 0, 1, "", -1))
        front = messages._ENVELOPE.pack(b"vedette", 1, ord("b"), len(head)) + head
        wrong = messages._encode(msgspec.structs.replace(body, **change))
        tracemalloc.start()
        try:
            with pytest.raises(MessageError) as error:
                messages.unpack(front + messages._compressor().compress(wrong))
            assert tracemalloc.get_traced_memory()[1] < 4 << 20, change
        finally:
            tracemalloc.stop()
        assert error.value.reason in (MessageReason.WRONG, MessageReason.DAMAGED)
    with pytest.raises(MessageError) as error:
        messages.pack(KEY, lines(many))
    assert error.value.reason is MessageReason.TOO_LARGE
    said = b"\x8c\xa7sources\xdf\x00\x10\x00\x00" + b"\xa1a\x80" * (messages.SAID_LIMIT // 3)
    with pytest.raises(MessageError) as error:
        messages.unpack_report(packed_as(b"r", said))
    assert error.value.reason is MessageReason.TOO_LARGE


_UNPACK = {b"r": messages.unpack_report, b"d": messages.unpack_dropped, b"c": messages.unpack_confirm}
_SAID = (
    messages.pack_report(Report("host", "web", "s", 1, 2, 3, "0.1", {"journal": SourceState(number=4)})),
    messages.pack_dropped(Dropped("host", "journal", 2, 5, -1, "spool-full", 8)),
    messages.pack_confirm(Confirm("host", 1, {"journal": 4}, {"journal": ((7, 9),)}, {})),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(_SAID), st.integers(0, 200), st.integers(0, 4), st.binary(max_size=8))
def test_what_is_said_and_altered_inside_is_refused_or_read(packed: bytes, at: int, cut: int, new: bytes) -> None:
    """The checksum holds: whoever alters it is an agent of the fleet."""
    kind = packed[8:9]
    raw = messages._decompressed(memoryview(packed)[11:], messages.SAID_LIMIT)
    at = min(at, len(raw))
    altered = packed_as(kind, raw[:at] + new + raw[at + cut :])
    for one, read in _UNPACK.items():
        try:
            read(altered)
        except MessageError:
            continue
        assert one == kind


def test_reports_gaps_and_confirms_come_back() -> None:
    state = SourceState(number=4, position=9, dropped={"late": 2})
    report = Report("host", "web", "s", 1, 2, 3, "0.1", {"journal": state}, spooled=7)
    gap = Dropped("host", "journal", 2, 5, -1, "spool-full", 8)
    confirm = Confirm("host", 1, {"journal": 4}, {"journal": ((7, 9),)}, {})
    assert messages.unpack_report(messages.pack_report(report)) == report
    assert messages.unpack_event(messages.pack_dropped(gap)) == gap
    assert messages.unpack_confirm(messages.pack_confirm(confirm)) == confirm
    with pytest.raises(MessageError):
        messages.unpack(messages.pack_dropped(gap))
    with pytest.raises(MessageError):
        messages.unpack_dropped(messages.pack_dropped(Dropped("host", "journal", 5, 2, 0, "late", 8)))


def test_a_cursor_too_long_to_travel_stays_at_home() -> None:
    batch = replace(lines(5), cursor="x" * 70_000)
    packed = messages.pack(KEY, batch)
    assert messages.unpack(packed)[1].cursor == ""
    assert messages.head_of(packed).last == int(batch.positions.max())
