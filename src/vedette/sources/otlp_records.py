"""OpenTelemetry log records, as protobuf and as JSON, made events under ECS names.
Counterpart: otlp.py takes requests and answers; `parsers.json` reads the events."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from vedette.model.reasons import DropReason
from vedette.sources.http_bodies import MOST_PARTS, BodyError, BodyTooLargeError

Pairs = list[tuple[str, Any]]

ECS_VERSION = "8.17"
_DEEPEST = 32
_LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")
_OWN = "otel.attributes."
"""Before the name of an attribute that another value has already."""


class _RecordError(Exception):
    """One record that cannot be read; the others can."""


@dataclass(slots=True)
class Events:
    """Events as JSON. dropped: records not taken, and attributes that stood a third time."""

    records: list[bytes] = field(default_factory=list)
    dropped: dict[DropReason, int] = field(default_factory=dict)

    def drop(self, reason: DropReason) -> None:
        """One more."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


@dataclass(slots=True)
class _Context:
    """What records of one scope have in common."""

    resource: Pairs
    name: str = ""
    version: str = ""
    attributes: Pairs = field(default_factory=list)


@dataclass(slots=True)
class _Record:
    """A record of either encoding. Times: nanoseconds UTC, 0 = not said."""

    time: int
    observed: int
    severity: int
    level: str
    body: Any
    attributes: Pairs
    trace: str
    span: str
    event: str


class Reader:
    """Reads bodies. max_record: bytes of a record, before and after; most: of all events of a body together."""

    def __init__(self, max_record: int, most: int) -> None:
        self._max_record = max_record
        self._most = most
        self._size = 0
        self._fields = 0
        self._made = Events()

    def protobuf(self, body: bytes) -> Events:
        """`ExportLogsServiceRequest`; BodyError where the body is none."""
        try:
            # Taken apart by hand down to the records: one that is broken costs itself alone, and a body of a million
            # empty ones costs no memory.
            for logs in self._parts(body, 1):
                resource = _last(self._parts(logs, 1))
                for scoped in self._parts(logs, 2):
                    scope = _last(self._parts(scoped, 1))
                    # An event has all of it, so that none could be taken; a million attributes are not looked at.
                    too_long = len(resource) + len(scope) > self._max_record
                    context = None if too_long else _context(resource, scope)
                    for record in self._parts(scoped, 2):
                        self._protobuf_record(record, context)
        except (DecodeError, _RecordError):
            raise BodyError("not an ExportLogsServiceRequest") from None
        return self._made

    def json(self, body: bytes) -> Events:
        """The same in JSON (OTLP specification, JSON Protobuf encoding)."""
        if body.count(b",") + body.count(b"{") + body.count(b"[") > MOST_PARTS:
            raise BodyTooLargeError
        try:
            asked = orjson.loads(body)
            for logs in _list(_dict(asked), "resourceLogs"):
                attributes = _json_attributes(_dict(_dict(logs).get("resource") or {}))
                for scoped in _list(logs, "scopeLogs"):
                    scope = _dict(_dict(scoped).get("scope") or {})
                    name, version = _text(scope, "name"), _text(scope, "version")
                    context = _Context(attributes, name, version, _json_attributes(scope))
                    for record in _list(scoped, "logRecords"):
                        self._json_record(record, context)
        except (ValueError, _RecordError):
            raise BodyError("not an ExportLogsServiceRequest") from None
        return self._made

    def _parts(self, message: bytes, wanted: int) -> Iterator[bytes]:
        """The values of one length-delimited field (protobuf encoding, wire types)."""
        for number, value in _fields(message):
            self._fields += 1
            if self._fields > MOST_PARTS:
                raise BodyTooLargeError
            if number == wanted:
                yield value

    def _protobuf_record(self, raw: bytes, context: _Context | None) -> None:
        if context is None or len(raw) > self._max_record:
            self._made.drop(DropReason.RECORD_TOO_LONG)
            return
        try:
            read = LogRecord.FromString(raw)
            body = _value(read.body) if read.HasField("body") else ""
            attributes = _attributes(read.attributes)
        except (DecodeError, _RecordError):
            self._made.drop(DropReason.JSON_UNREADABLE)
            return
        record = _Record(
            time=read.time_unix_nano,
            observed=read.observed_time_unix_nano,
            severity=read.severity_number,
            level=read.severity_text,
            body=body,
            attributes=attributes,
            trace=read.trace_id.hex(),
            span=read.span_id.hex(),
            event=read.event_name,
        )
        self._add(record, context)

    def _json_record(self, value: Any, context: _Context) -> None:
        try:
            read = _dict(value)
            record = _Record(
                time=_integer(read.get("timeUnixNano") or 0),
                observed=_integer(read.get("observedTimeUnixNano") or 0),
                severity=_integer(read.get("severityNumber") or 0),
                level=_text(read, "severityText"),
                body=_json_value(read.get("body") or {"stringValue": ""}, 0),
                attributes=_json_attributes(read),
                trace=_text(read, "traceId").lower(),
                span=_text(read, "spanId").lower(),
                event=_text(read, "eventName"),
            )
        except (ValueError, _RecordError):
            self._made.drop(DropReason.JSON_UNREADABLE)
            return
        self._add(record, context)

    def _add(self, record: _Record, context: _Context) -> None:
        event = _event(record, context, self._made)
        try:
            made = orjson.dumps(event)
        except (orjson.JSONEncodeError, UnicodeError):
            self._made.drop(DropReason.JSON_UNREADABLE)
            return
        if len(made) > self._max_record:
            self._made.drop(DropReason.RECORD_TOO_LONG)
            return
        self._size += len(made)
        if self._size > self._most:
            # What all records have in common is small on the way, and is not when each has it.
            raise BodyTooLargeError
        self._made.records.append(made)


def response(rejected: int, why: str, *, as_json: bool) -> bytes:
    """`ExportLogsServiceResponse`; rejected: records that are not taken and shall not come again."""
    if as_json:
        told = {"rejectedLogRecords": str(rejected), "errorMessage": why}
        return orjson.dumps({"partialSuccess": told} if rejected else {})
    made = ExportLogsServiceResponse()
    if rejected:
        made.partial_success.rejected_log_records = rejected
        made.partial_success.error_message = why
    return bytes(made.SerializeToString())


# ----------------------------------------------------------------------------------------------- events


def _event(record: _Record, context: _Context, made: Events) -> dict[str, Any]:
    event: dict[str, Any] = {"ecs": {"version": ECS_VERSION}}
    if time := record.time or record.observed:
        event["@timestamp"] = _written(time)
    event["message"] = record.body if isinstance(record.body, str) else orjson.dumps(record.body).decode()
    level = record.level or (_LEVELS[(record.severity - 1) // 4] if 1 <= record.severity <= 24 else "")
    for name, value in (
        ("log.level", level),
        ("event.severity", record.severity),
        ("trace.id", record.trace),
        ("span.id", record.span),
        ("event.action", record.event),
        ("otel.scope.name", context.name),
        ("otel.scope.version", context.version),
    ):
        if value:
            event[name] = value
    for pairs in (record.attributes, context.attributes, context.resource):
        for name, value in pairs:
            if name not in event:
                event[name] = value
            elif _OWN + name not in event:
                event[_OWN + name] = value
            else:
                made.drop(DropReason.JSON_DUPLICATE_KEY)
    return event


def _written(nanoseconds: int) -> str:
    whole, part = divmod(nanoseconds, 1_000_000_000)
    try:
        at = datetime.fromtimestamp(whole, UTC)
    except (ValueError, OverflowError, OSError):
        return str(nanoseconds)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{part // 1000:06d}Z"


# ----------------------------------------------------------------------------------------------- protobuf


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 2:
            size, at = _varint(message, at)
            if not number or size > end - at:
                raise _RecordError
            yield number, message[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(message, at)
            yield 0, b""
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
            yield 0, b""
        else:
            raise _RecordError
    if at > end:
        raise _RecordError


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise _RecordError
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _RecordError


def _last(values: Iterator[bytes]) -> bytes:
    found = b""
    for value in values:
        found = value
    return found


def _context(resource: bytes, scope: bytes) -> _Context:
    named = InstrumentationScope.FromString(scope)
    attributes = _attributes(Resource.FromString(resource).attributes)
    return _Context(attributes, named.name, named.version, _attributes(named.attributes))


def _attributes(pairs: Any) -> Pairs:
    return [(pair.key, _value(pair.value)) for pair in pairs]


def _value(value: AnyValue | Message, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise _RecordError
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "array_value":
        return [_value(one, depth + 1) for one in found.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value, depth + 1) for pair in found.values}
    if kind == "bytes_value":
        return b64encode(found).decode()
    return _number(found) if kind == "double_value" else found


# ----------------------------------------------------------------------------------------------- JSON


def _dict(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _RecordError
    return value


def _list(value: Any, name: str) -> list[Any]:
    found = _dict(value).get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise _RecordError
    return found


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _RecordError
    return found


def _integer(value: Any) -> int:
    """64-bit integers are decimal text in JSON, and may be numbers."""
    if isinstance(value, str) and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not -(1 << 63) <= value < 1 << 64:
        raise _RecordError
    return value


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _json_attributes(of: Mapping[str, Any]) -> Pairs:
    return [(_text(_dict(pair), "key"), _json_value(pair.get("value") or {}, 0)) for pair in _list(of, "attributes")]


def _json_value(value: Any, depth: int) -> Any:
    value = _dict(value)
    if depth > _DEEPEST or len(value) > 1:
        raise _RecordError
    for kind, found in value.items():
        if kind == "arrayValue":
            return [_json_value(one, depth + 1) for one in _list(found, "values")]
        if kind == "kvlistValue":
            pairs = _list(found, "values")
            return {_text(_dict(pair), "key"): _json_value(pair.get("value") or {}, depth + 1) for pair in pairs}
        if kind in ("stringValue", "bytesValue"):
            return _text(value, kind)
        if kind == "intValue":
            return _integer(found)
        if kind == "boolValue" and isinstance(found, bool):
            return found
        if kind == "doubleValue" and isinstance(found, int | float | str) and not isinstance(found, bool):
            return _number(float(found))
        raise _RecordError
    return None
