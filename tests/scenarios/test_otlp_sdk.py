"""The real OpenTelemetry SDK sends through its exporter: every record it was told is kept arrives, as it was logged.
Counterpart: src/vedette/sources/otlp.py."""

from __future__ import annotations

import asyncio
from contextlib import closing

import orjson
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from tests.sources.collecting import Counts, running

from vedette.model.clock import SystemClock
from vedette.sources.otlp import OtlpSource
from vedette.sources.settings import OtlpSettings
from vedette.sources.syslog_sockets import Listeners

TOKEN = "a-token-of-the-shop"
RECORDS = 300

pytestmark = pytest.mark.slow


class Exporter(OTLPLogExporter):
    """The real one, which remembers what came of its requests."""

    results: list[LogRecordExportResult]

    def export(self, batch):
        result = super().export(batch)
        self.results.append(result)
        return result


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
async def test_what_the_sdk_logs_arrives_also_where_it_is_not_kept_at_first(
    monkeypatch: pytest.MonkeyPatch, compression: Compression
):
    monkeypatch.setenv("SHOP", TOKEN)
    wanted = OtlpSettings.model_validate(
        {"listen": [{"tcp": "127.0.0.1:0"}], "tokens": [{"name": "shop", "token": {"env": "SHOP"}}]}
    )
    fails, counts = [True, False], Counts()

    async def kept() -> None:
        if fails and fails.pop(0):
            raise OSError("disk full")

    with closing(Listeners()) as listeners:
        source = OtlpSource(wanted, listeners, host_id="h", clock=SystemClock(), counter=counts, kept=kept)
        async with running(source) as got:
            await source.begun.wait()
            port = listeners.open(wanted.places[0]).getsockname()[1]
            results = await asyncio.to_thread(log_all, port, compression)
    assert results
    assert set(results) == {LogRecordExportResult.SUCCESS}
    events = [orjson.loads(record) for record in got.records]
    assert {event["message"] for event in events} == {f"payment {number} declined" for number in range(RECORDS)}
    assert counts.seen["otlp_requests", "not-kept"] == 1
    first = events[0]
    assert (first["service.name"], first["host.name"], first["log.level"]) == ("shop", "web1", "WARN")
    assert (first["otel.scope.name"], first["user.name"], first["event.severity"]) == ("shop.pay", "anna", 13)
    assert {batch.origin.source for batch in got.batches} == {"otlp:token/shop"}


def log_all(port: int, compression: Compression) -> list[LogRecordExportResult]:
    exporter = Exporter(
        f"http://127.0.0.1:{port}/v1/logs", headers={"Authorization": f"Bearer {TOKEN}"}, compression=compression
    )
    exporter.results = []
    provider = LoggerProvider(Resource.create({"service.name": "shop", "host.name": "web1"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_export_batch_size=100))
    logger = provider.get_logger("shop.pay", "2")
    for number in range(RECORDS):
        logger.emit(
            LogRecord(
                timestamp=1_764_000_000_000_000_000 + number,
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=f"payment {number} declined",
                attributes={"user.name": "anna"},
            )
        )
    provider.shutdown()
    return exporter.results
