"""OpenTelemetry log records over loopback: events under ECS names, and what is no record.
Counterpart: src/vedette/sources/otlp.py and otlp_records.py."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from tests.sources.collecting import Collected, Counts, running

from vedette.model.reasons import DropReason
from vedette.parsers.json import JsonParser
from vedette.sources import otlp_records
from vedette.sources.http_bodies import BodyError, BodyTooLargeError
from vedette.sources.otlp import OtlpSource
from vedette.sources.otlp_records import Reader
from vedette.sources.settings import OtlpSettings
from vedette.sources.syslog_sockets import Listeners
from vedette.testing.clock import FakeClock

TOKEN = "a-token-of-the-first"
TIME = 1_764_000_000_123_456_789
EVENT = {
    "ecs": {"version": otlp_records.ECS_VERSION},
    "@timestamp": "2025-11-24T16:00:00.123456Z",
    "message": "declined",
    "log.level": "error",
    "event.severity": 17,
    "trace.id": "0102030405060708090a0b0c0d0e0f10",
    "span.id": "0102030405060708",
    "event.action": "payment",
    "otel.scope.name": "shop.pay",
    "otel.scope.version": "2",
    "user.name": "alice",
    "tries": [1, 2.5, True, "NaN", {"in": None}],
    "raw": "AAE=",
    "service.name": "shop",
    "host.name": "web1",
    "otel.attributes.user.name": "daemon",
}
JSON = {
    "resourceLogs": [
        {
            "resource": {
                "attributes": [
                    {"key": "service.name", "value": {"stringValue": "shop"}},
                    {"key": "host.name", "value": {"stringValue": "web1"}},
                    {"key": "user.name", "value": {"stringValue": "daemon"}},
                ]
            },
            "scopeLogs": [
                {
                    "scope": {"name": "shop.pay", "version": "2"},
                    "logRecords": [
                        {
                            "timeUnixNano": str(TIME),
                            "observedTimeUnixNano": "1",
                            "severityNumber": 17,
                            "body": {"stringValue": "declined"},
                            "traceId": "0102030405060708090A0B0C0D0E0F10",
                            "spanId": "0102030405060708",
                            "eventName": "payment",
                            "attributes": [
                                {"key": "user.name", "value": {"stringValue": "alice"}},
                                {
                                    "key": "tries",
                                    "value": {
                                        "arrayValue": {
                                            "values": [
                                                {"intValue": "1"},
                                                {"doubleValue": 2.5},
                                                {"boolValue": True},
                                                {"doubleValue": "NaN"},
                                                {"kvlistValue": {"values": [{"key": "in", "value": {}}]}},
                                            ]
                                        }
                                    },
                                },
                                {"key": "raw", "value": {"bytesValue": "AAE="}},
                            ],
                        }
                    ],
                }
            ],
        }
    ]
}


def protobuf() -> ExportLogsServiceRequest:
    asked = ExportLogsServiceRequest()
    logs = asked.resource_logs.add()
    for name, value in (("service.name", "shop"), ("host.name", "web1"), ("user.name", "daemon")):
        logs.resource.attributes.add(key=name).value.string_value = value
    scoped = logs.scope_logs.add()
    scoped.scope.name, scoped.scope.version = "shop.pay", "2"
    record = scoped.log_records.add(time_unix_nano=TIME, observed_time_unix_nano=1, severity_number=17)
    record.body.string_value = "declined"
    record.trace_id, record.span_id, record.event_name = bytes(range(1, 17)), bytes(range(1, 9)), "payment"
    record.attributes.add(key="user.name").value.string_value = "alice"
    tries = record.attributes.add(key="tries").value.array_value.values
    tries.add(int_value=1)
    tries.add(double_value=2.5)
    tries.add(bool_value=True)
    tries.add(double_value=float("nan"))
    tries.add().kvlist_value.values.add(key="in")
    record.attributes.add(key="raw").value.bytes_value = b"\0\1"
    return asked


def test_both_encodings_make_the_same_event():
    for made in (
        Reader(65536, 1 << 20).protobuf(protobuf().SerializeToString()),
        Reader(65536, 1 << 20).json(orjson.dumps(JSON)),
    ):
        assert [orjson.loads(record) for record in made.records] == [EVENT]
        assert not made.dropped


def test_a_record_that_is_none_costs_itself_alone():
    asked = protobuf()
    records = asked.resource_logs[0].scope_logs[0].log_records
    records.add().body.string_value = "x" * 2000
    deep = records.add().body
    for _ in range(40):
        deep = deep.array_value.values.add()
    body = asked.SerializeToString()
    made = Reader(1500, 1 << 20).protobuf(body.replace(b"declined", b"declin\xff\xff", 1))
    assert (made.records, made.dropped) == ([], {DropReason.JSON_UNREADABLE: 2, DropReason.RECORD_TOO_LONG: 1})
    wrong = {"body": {"intValue": {}}}, {"attributes": 3}, {"timeUnixNano": "x"}, {"severityText": []}, 7, {"body": 7}
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [*wrong, {"body": {"stringValue": "good"}}]}]}]}
    made = Reader(1500, 1 << 20).json(orjson.dumps(logs))
    assert [orjson.loads(record)["message"] for record in made.records] == ["good"]
    assert made.dropped == {DropReason.JSON_UNREADABLE: len(wrong)}


def test_an_attribute_that_stands_a_third_time_is_counted():
    asked = protobuf()
    scope = asked.resource_logs[0].scope_logs[0].scope
    scope.attributes.add(key="user.name").value.string_value = "third"
    made = Reader(65536, 1 << 20).protobuf(asked.SerializeToString())
    assert made.dropped == {DropReason.JSON_DUPLICATE_KEY: 1}
    assert orjson.loads(made.records[0])["otel.attributes.user.name"] == "third"


@pytest.mark.parametrize("body", [b"[]", b'{"resourceLogs":{}}', b'{"resourceLogs":[1]}', b"{", b"[" * 5000, b"\xff"])
def test_json_that_is_no_request_is_refused(body: bytes):
    with pytest.raises(BodyError):
        Reader(1024, 1024).json(body)


@examples(max_examples=60)
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 400))
def test_bytes_that_are_no_request_are_refused_or_read_and_never_more(garbage: bytes, begin: int, end: int):
    body = protobuf().SerializeToString()
    for hostile in (garbage, body[:begin] + garbage + body[max(begin, end) :]):
        reader = Reader(1024, 1 << 16)
        try:
            made = reader.protobuf(hostile)
        except BodyError:
            continue
        assert all(type(orjson.loads(record)) is dict for record in made.records)


def test_bodies_that_grow_are_bounded(monkeypatch: pytest.MonkeyPatch):
    asked = protobuf()
    asked.resource_logs[0].resource.attributes.add(key="big").value.string_value = "x" * 900
    for _ in range(100):
        asked.resource_logs[0].scope_logs[0].log_records.add()
    with pytest.raises(BodyTooLargeError):
        Reader(65536, 50_000).protobuf(asked.SerializeToString())
    monkeypatch.setattr(otlp_records, "MOST_PARTS", 100)
    with pytest.raises(BodyTooLargeError):
        Reader(65536, 1 << 20).protobuf(b"\x0a\x00" * 101)
    with pytest.raises(BodyTooLargeError):
        Reader(65536, 1 << 20).json(b"[" + b"[]," * 60 + b"[]]")


def test_what_all_records_have_in_common_is_no_way_to_fill_the_memory():
    # 4 MB of attributes of two bytes each, which gzip makes 4 KB of.
    bomb = b"\x0a\x00" * 2_000_000
    front = b"\x0a" + bytes([len(bomb) & 127 | 128, len(bomb) >> 7 & 127 | 128, len(bomb) >> 14 & 127 | 128, 1]) + bomb
    scoped = protobuf().resource_logs[0].scope_logs[0].SerializeToString()
    whole = front + b"\x12" + bytes([len(scoped) & 127 | 128, len(scoped) >> 7]) + scoped
    size = len(whole)
    body = b"\x0a" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21]) + whole
    tracemalloc.start()
    try:
        made = Reader(65536, 1 << 25).protobuf(body)
        # A few copies of the body, and nothing for each attribute.
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
    finally:
        tracemalloc.stop()
    assert not made.records
    assert made.dropped == {DropReason.RECORD_TOO_LONG: 1}


@asynccontextmanager
async def listening(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[int, Collected, Counts]]:
    monkeypatch.setenv("FIRST", TOKEN)
    wanted = OtlpSettings.model_validate(
        {"listen": [{"tcp": "127.0.0.1:0"}], "tokens": [{"name": "shop", "token": {"env": "FIRST"}}]}
    )
    counts = Counts()
    with closing(Listeners()) as listeners:
        source = OtlpSource(wanted, listeners, host_id="h", clock=FakeClock(1), counter=counts)
        async with running(source) as got:
            await source.begun.wait()
            yield listeners.open(wanted.places[0]).getsockname()[1], got, counts


async def post(port: int, body: bytes, media: str, *lines: str) -> tuple[int, bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    header = ("POST /v1/logs HTTP/1.1", "Host: x", f"Content-Type: {media}", f"Content-Length: {len(body)}", *lines)
    writer.write("\r\n".join([*header, "Connection: close", "", ""]).encode() + body)
    head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), head.lower(), rest


async def test_a_request_is_answered_in_its_own_encoding(monkeypatch: pytest.MonkeyPatch):
    packed, plain = "application/x-protobuf", "application/json; charset=utf-8"
    token = f"Authorization: Bearer {TOKEN}"
    async with listening(monkeypatch) as (port, got, counts):
        asked = protobuf()
        status, head, answer = await post(port, asked.SerializeToString(), packed, token)
        assert (status, answer, b"content-type: application/x-protobuf" in head) == (200, b"", True)
        body = gzip.compress(orjson.dumps(JSON))
        assert (await post(port, body, plain, token, "Content-Encoding: gzip"))[::2] == (200, b"{}")
        asked.resource_logs[0].scope_logs[0].log_records.add().body.string_value = "x" * 70_000
        status, _, answer = await post(port, asked.SerializeToString(), packed, token)
        told = ExportLogsServiceResponse.FromString(answer).partial_success
        assert (status, told.rejected_log_records, told.error_message) == (200, 1, "1 longer than max_record")
        logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [7]}]}]}
        status, _, answer = await post(port, orjson.dumps(logs), plain, token)
        assert orjson.loads(answer) == {
            "partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "1 not a log record"}
        }
        assert (await post(port, b"\xff\xff", packed, token))[::2] == (400, b"\x12\x1fnot an ExportLogsServiceRequest")
        assert (await post(port, b"{", plain, token))[0] == 400
        assert (await post(port, b"{}", "text/plain", token))[0] == 415
        assert (await post(port, b"{}", plain))[::2] == (401, b'{"message":"no token"}')
        assert [orjson.loads(record) for record in got.records] == [EVENT] * 3
        assert counts.seen["source_dropped", "json-unreadable"] == 1
        assert counts.seen["otlp_requests", "kept"] == 4
    assert {batch.origin.source for batch in got.batches} == {"otlp:token/shop"}


async def test_the_parser_reads_what_is_emitted(monkeypatch: pytest.MonkeyPatch):
    async with listening(monkeypatch) as (port, got, _):
        token = f"Authorization: Bearer {TOKEN}"
        await post(port, protobuf().SerializeToString(), "application/x-protobuf", token)
        await got.count(1)
    table = JsonParser(Counts()).parse(got.batches[0])
    found = {
        name: table.column(name).value(0)
        for name in (
            "message",
            "log.level",
            "service.name",
            "host.name",
            "trace.id",
            "span.id",
            "event.severity",
            "user.name",
        )
    }
    assert found == {name: EVENT[name] for name in found}
    assert table.time.tolist() == [TIME // 1000]


def test_severity_and_time_fall_back():
    asked = ExportLogsServiceRequest()
    records = asked.resource_logs.add().scope_logs.add().log_records
    records.add(observed_time_unix_nano=TIME, severity_number=5)
    records.add(severity_text="Notice", severity_number=9)
    records.append(LogRecord(severity_number=25, time_unix_nano=(1 << 64) - 1))
    records.add().body.kvlist_value.values.add(key="a").value.int_value = 1
    made = [orjson.loads(record) for record in Reader(65536, 1 << 20).protobuf(asked.SerializeToString()).records]
    assert [(one.get("@timestamp"), one.get("log.level"), one["message"]) for one in made] == [
        ("2025-11-24T16:00:00.123456Z", "debug", ""),
        (None, "Notice", ""),
        ("2554-07-21T23:34:33.709551Z", None, ""),
        (None, None, '{"a":1}'),
    ]
