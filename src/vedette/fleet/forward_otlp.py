"""OTLP/HTTP out: records as OpenTelemetry log records, protobuf by POST (opentelemetry.io/docs/specs/otlp, OTLP/HTTP).
Counterpart: an OpenTelemetry collector or a log service that takes OTLP; `fleet.forward` hands in groups."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

from vedette.fleet.forward import Headed, Heads, Stored
from vedette.fleet.forward_http import Posting, bodies_of
from vedette.fleet.forward_settings import OtlpTarget

_SEVERITY = (21, 19, 18, 17, 13, 10, 9, 5)
"""OTel's number of each syslog severity (Logs Data Model, appendix B)."""


class OtlpForward:
    """Each piece is a request of one record: requests one behind the other are one request, as protobuf merges them."""

    def __init__(self, settings: OtlpTarget, heads: Heads) -> None:
        self._heads = heads
        self._posting = Posting(settings, "application/x-protobuf")

    async def send(self, group: Sequence[Stored], _after: int) -> int:
        """How many records were refused for ever, also by a partial success."""
        bodies = await asyncio.to_thread(lambda: list(bodies_of(one for each in group for one in self._requests(each))))
        return sum([await self._posting.send(body, _rejected) for body in bodies])

    async def close(self) -> None:
        """Give back the connections."""
        await self._posting.close()

    def _requests(self, stored: Stored) -> Iterator[bytes]:
        batch = stored.batch
        headed = self._heads(batch)
        times, positions = headed.time.tolist(), batch.positions.tolist()
        for row in range(len(batch)):
            request = ExportLogsServiceRequest()
            resource = request.resource_logs.add()
            resource.resource.attributes.append(_attribute("host.id", stored.key.host_id))
            scope = resource.scope_logs.add()
            scope.scope.name = "vedette"
            record = scope.log_records.add()
            record.time_unix_nano = max(times[row], 0) * 1000
            record.observed_time_unix_nano = max(batch.read_at, 0) * 1000
            _set_body(record, batch.raw(row))
            _set_severity(record, headed, row)
            record.attributes.append(_attribute("log.record.uid", batch.origin.record_id(positions[row])))
            record.attributes.append(_attribute("vedette.stream", stored.key.stream))
            for name, column in (("host.name", headed.host), ("process.name", headed.program)):
                if column.value(row):
                    record.attributes.append(_attribute(name, str(column.value(row))))
            yield request.SerializeToString()


def _attribute(name: str, value: str) -> KeyValue:
    made = KeyValue(key=name)
    # A header's bytes that are no UTF-8 are lone surrogates here, which protobuf refuses.
    made.value.string_value = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return made


def _set_body(record: LogRecord, raw: bytes) -> None:
    """Text as text; what is none as the bytes it is."""
    try:
        record.body.string_value = raw.decode("utf-8")
    except UnicodeDecodeError:
        record.body.bytes_value = raw


def _set_severity(record: LogRecord, headed: Headed, row: int) -> None:
    severity = headed.severity.value(row)
    if isinstance(severity, int) and 0 <= severity < len(_SEVERITY):
        record.severity_number = SeverityNumber.ValueType(_SEVERITY[severity])


def _rejected(answer: bytes) -> int:
    """Records a partial success did not take; of an answer that is none, none."""
    response = ExportLogsServiceResponse()
    try:
        response.ParseFromString(answer)
    except DecodeError:
        return 0
    return max(int(response.partial_success.rejected_log_records), 0)
