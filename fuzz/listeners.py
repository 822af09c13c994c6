"""What strangers and hosts of the fleet send over a network: a function for each reader of it, and seeds.
Counterpart: fuzz/targets.py has them in its registry; tests/sources and tests/fleet hold what listeners answer."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

import msgspec
import numpy as np
import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from vedette.fleet import bundles, messages
from vedette.fleet.authority import RequestError, check_request, new_key, request
from vedette.fleet.blocks import read_wanted
from vedette.fleet.bundles import BundleError, Content, Order
from vedette.fleet.control import PREFIX, HeadTold, read_answer, read_ask
from vedette.fleet.enrolment import EnrolRequest
from vedette.fleet.messages import Confirm, MessageError
from vedette.fleet.signing import SignedError
from vedette.model.batch import Batch, Origin, RecordFormat, split_lines
from vedette.model.shipping import BatchKey, Dropped, Report, SourceState
from vedette.sources.connections import Connection, Connections
from vedette.sources.http_bodies import BodyError, BodyTooLargeError, records_of, unpacked
from vedette.sources.http_server import HttpServer, Limits
from vedette.sources.http_words import Answer, Asked
from vedette.sources.otlp_records import Reader
from vedette.sources.relp_frames import Frame, FrameError, RelpFrames
from vedette.sources.syslog_frames import Frames

LIMIT = 200
"""Bytes of a record."""
MOST = 1 << 16
"""Bytes a body may unpack to."""
HOST = "6f0c2c1e-1f0b-4d53-9a53-0a5d6a0f1c11"


def _cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """The text of an input, and its pieces: the first eight bytes say where it is cut."""
    text = data[8:]
    places = sorted({0, len(text), *(sum(data[1:end]) % (len(text) + 1) for end in range(2, 9))})
    return text, [text[a:b] for a, b in pairwise(places)]


# ------------------------------------------------------------------------------------------------ connections


def frames(data: bytes) -> None:
    """Syslog over TCP: the same records however they come, none too long, and little is held back."""
    text, pieces = _cut(data)

    def read(*parts: bytes) -> tuple[list[bytes], int, bool]:
        made, records = Frames(LIMIT), []
        for part in parts:
            records += made.feed(part)
            assert len(made) <= max(LIMIT + 10, len(part)), len(made)
        records += made.finish()
        return records, made.too_long, made.cut_off

    assert read(*pieces) == read(text)
    assert all(0 < len(record) <= LIMIT for record in read(text)[0])


def relp(data: bytes) -> None:
    """RELP: the same frames however they come, or an error at the same place."""
    text, pieces = _cut(data)

    def read(*parts: bytes) -> tuple[list[Frame], bool]:
        made, found = RelpFrames(LIMIT), []
        try:
            for part in parts:
                for at in range(len(part)):
                    found += made.feed(part[at : at + 1])
                    assert len(made._buffer) <= LIMIT + 64
        except FrameError:
            return found, True
        return found, False

    def whole(*parts: bytes) -> bool:
        made = RelpFrames(LIMIT)
        try:
            for part in parts:
                assert all(len(frame.data) <= LIMIT for frame in made.feed(part))
        except FrameError:
            return True
        return False

    assert whole(*pieces) == whole(text) == read(text)[1]


def http(data: bytes) -> None:
    """A connection of HTTP, whatever comes: it ends, and bodies come as they were sent or not at all."""
    asyncio.run(_converse(data))


async def _converse(data: bytes) -> None:
    async def taken(asked: Asked) -> Answer:
        try:
            async for part in asked.body:
                assert part in data or len(part) > 0
        except (TimeoutError, ConnectionError):
            return Answer(400, close=True)
        return Answer(200, asked.path.encode("utf-8", "replace"))

    async def other(_asked: Asked) -> Answer:
        return Answer(404, close=True)

    server = HttpServer({"/": taken}, other, Limits(1.0, 0.3, 0.3, 0.3))
    place = Connections(1, 1).take("192.0.2.1")
    assert isinstance(place, Connection)
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        ours.setblocking(False)
        theirs.send(data)
        theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(5):
            await server.converse(ours, place, None)
        await server.stop()
        answer = b""
        try:
            while part := theirs.recv(1 << 16):
                answer += part
        except (BlockingIOError, ConnectionResetError):
            pass
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:40]
    assert b" 500 " not in answer[:20], answer[:60]


# ------------------------------------------------------------------------------------------------ bodies


def bodies(data: bytes) -> None:
    """JSON by HTTP, plain and packed: never more than was allowed, and every record is in what came."""
    for pack in (False, True):
        try:
            body = unpacked(data, MOST) if pack else data
            made = records_of(body, LIMIT)
        except (BodyError, BodyTooLargeError):
            continue
        assert len(body) <= MOST or not pack
        assert all(record in body and len(record) <= LIMIT for record in made.records)


def otlp(data: bytes) -> None:
    """OpenTelemetry's log records in both encodings: events of ours, or one of two errors."""
    for read in (Reader(1024, MOST).protobuf, Reader(1024, MOST).json):
        try:
            made = read(data)
        except (BodyError, BodyTooLargeError):
            continue
        assert sum(map(len, made.records)) <= MOST
        for record in made.records:
            assert len(record) <= 1024
            assert type(orjson.loads(record)) is dict


# ------------------------------------------------------------------------------------------------ the fleet

_READERS: tuple[Callable[[bytes], object], ...] = (
    messages.unpack_event,
    messages.unpack_report,
    messages.unpack_confirm,
    messages.head_of,
    lambda data: messages.renumbered(data, 7),
)


def message(data: bytes) -> None:
    """What hub and agent say: as it is, and as the inside of a message whose checksum holds."""
    _message(data)
    for kind in b"rdc":
        _message(messages._ENVELOPE.pack(b"vedette", 1, kind, 0) + messages._compressor().compress(data))
    size = data[0] if data else 0
    head, body = data[1 : 1 + size], data[1 + size :]
    front = messages._ENVELOPE.pack(b"vedette", 1, ord("b"), len(head))
    _message(front + head + messages._compressor().compress(body))


def _message(packed: bytes) -> None:
    for read in _READERS:
        try:
            found = read(packed)
        except MessageError:
            continue
        if isinstance(found, tuple):
            batch = found[1]
            assert isinstance(batch, Batch)
            assert len(batch) <= messages.ROWS_LIMIT
            assert not len(batch) or (int(batch.starts.min()) >= 0 and int(batch.ends.max()) <= len(batch.block))
            again = messages.unpack(messages.pack(*found))[1]
            assert again.block == batch.block
            assert np.array_equal(again.positions, batch.positions)


def orders(data: bytes) -> None:
    """Bundles, orders and decisions, before there is a signature to check and after; questions about witnesses."""
    for read, error in (
        (lambda: bundles.read_order(data, b""), BundleError),
        (lambda: bundles.unpacked(data), BundleError),
        (lambda: bundles.understood(data), BundleError),
        (lambda: read_wanted(data, b""), SignedError),
        (lambda: read_ask(PREFIX + data), ValueError),
        (lambda: read_answer(data, HeadTold), ValueError),
    ):
        try:
            read()
        except error:
            continue


def enrolment(data: bytes) -> None:
    """What comes through the door: a request that is one, whose certificate request is for this host and no more."""
    try:
        asked = msgspec.json.decode(data, type=EnrolRequest)
        check_request(asked.csr.encode(), asked.host_id)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, RequestError):
        return
    assert asked.host_id == HOST


# ------------------------------------------------------------------------------------------------ seeds

_PLACES = bytes([0, 5, 30, 70, 11, 200, 3, 99])


def frame_seeds() -> Iterator[bytes]:
    """Lines and counted frames."""
    for text in (b"<13>one\n<13>two\r\n", b"8 <13>ab\n\n11 <13>counted<13>line\n", b"400 " + b"x" * 400 + b"3 <1>"):
        yield _PLACES + text


def relp_seeds() -> Iterator[bytes]:
    """Sessions."""
    yield _PLACES + b"1 open 14 relp_version=1\n2 syslog 8 <13>abcd\n3 syslog 0\n4 close 0\n"
    yield _PLACES + b"1 open 0\n2 syslog 300 " + b"x" * 300 + b"\n"


def http_seeds() -> Iterator[bytes]:
    """Requests of every kind."""
    yield b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}POST / HTTP/1.1\r\nHost: [\r\n\r\n"
    yield b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0;a=b\r\nX: y\r\n\r\n"
    yield b"GET http://[/%ff/../a?b HTTP/1.0\r\nExpect: 100-continue\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    yield b"BREW * HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nshort"


def body_seeds() -> Iterator[bytes]:
    """Objects, arrays, lines, and gzip of them."""
    for text in (b'{"a": 1}', b'[{"a": 1},\n {"b": [2]}]', b'\xef\xbb\xbf{"a":1}\r\n\n {"b":"\xff"}\n[3]\n'):
        yield text
        yield gzip.compress(text, mtime=0) * 2
    yield gzip.compress(bytes(MOST * 2), mtime=0)


def otlp_seeds() -> Iterator[bytes]:
    """One request in both encodings."""
    asked = ExportLogsServiceRequest()
    logs = asked.resource_logs.add()
    logs.resource.attributes.add(key="service.name").value.string_value = "shop"
    record = logs.scope_logs.add().log_records.add(time_unix_nano=1_764_000_000_123_456_789, severity_number=17)
    record.body.kvlist_value.values.add(key="a").value.array_value.values.add().double_value = 0.5
    record.attributes.add(key="x").value.bytes_value = b"\0\xff"
    yield asked.SerializeToString()
    value = {"kvlistValue": {"values": [{"key": "a", "value": {"arrayValue": {"values": [{"doubleValue": "NaN"}]}}}]}}
    records = [{"timeUnixNano": "17", "severityNumber": 9, "body": value, "attributes": [{"key": "b", "value": {}}]}]
    yield orjson.dumps({"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": records}]}]})


@cache
def _batch() -> bytes:
    block = b"<13>one\n<13>two"
    starts, ends = split_lines(block)
    batch = Batch(Origin(HOST, "journal"), 1, block, starts, ends, starts, 5, RecordFormat.SYSLOG)
    return messages.pack(BatchKey(HOST, "journal", 4), batch)


def message_seeds() -> Iterator[bytes]:
    """Messages, and what is in them."""
    packed = _batch()
    size = int.from_bytes(packed[9:11], "little")
    body = messages._decompressed(memoryview(packed)[11 + size :], messages.RAW_LIMIT)
    yield packed
    yield bytes([size]) + packed[11 : 11 + size] + body
    for said in (
        messages.pack_report(Report(HOST, "web", "s", 1, 2, 3, "0.1", {"journal": SourceState(dropped={"late": 1})})),
        messages.pack_dropped(Dropped(HOST, "journal", 2, 5, -1, "spool-full", 8)),
        messages.pack_confirm(Confirm(HOST, 1, {"journal": 4}, {"journal": ((7, 9),)}, {})),
    ):
        yield messages._decompressed(memoryview(said)[11:], messages.SAID_LIMIT)


def order_seeds() -> Iterator[bytes]:
    """Bundles and orders, and the frame around what is signed."""
    content = Content(files={"../../etc/a.yml": "title: t"}, placeholders={"x": [1, "y"]})
    yield bundles.packed(content)
    yield bundles.order_bytes(Order(3, HOST, 7, content))
    signed = {"format": "vedette-signed", "version": 1, "kind": "bundle"}
    yield msgspec.msgpack.encode(signed | {"certificate": b"-----BEGIN", "signature": bytes(64), "body": b"\x28"})
    yield b'{"type":"HeadAsked","size":3}'


def enrolment_seeds() -> Iterator[bytes]:
    """A good one, and one for another host."""
    for host_id in (HOST, "../ca"):
        yield msgspec.json.encode(EnrolRequest(1, host_id, "web01", "x" * 43, request(new_key(), HOST).decode()))
