"""OTLP/HTTP out to a real server over TLS: what a record becomes, and what a partial success says.
Counterpart: vedette.fleet.forward_otlp."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from tests.fleet.forwarding import HOST, Shelves
from tests.scenarios.parts.certificates import Authority

from vedette.app.forwarding import heads
from vedette.fleet import forward_http
from vedette.fleet.forward_otlp import OtlpForward
from vedette.fleet.forward_settings import OtlpTarget
from vedette.sources.otlp_records import Reader


class Collector:
    """Answers each request with the next of `answers`, then with an empty one."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[ExportLogsServiceRequest] = []
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                body = await reader.readexactly(int(head.lower().split("content-length: ")[1].split("\r\n")[0]))
                self.heads.append(head.lower())
                self.bodies.append(body)
                self.requests.append(ExportLogsServiceRequest.FromString(body))
                answer = self.answers.pop(0) if self.answers else b""
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def taken(self, authority: Authority, shelves: Shelves) -> int:
        """How many of everything on the shelves were refused."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=authority.server_context())
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/logs"
        made = {"type": "otlp", "name": "there", "url": url, "ca_file": str(authority.ca_file), "timeout": 5}
        sending = OtlpForward(OtlpTarget.model_validate(made), heads())
        try:
            return await sending.send(shelves.put, 0)
        finally:
            await sending.close()
            server.close()
            await server.wait_closed()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_a_record_keeps_its_bytes_its_times_and_its_severity(authority: Authority) -> None:
    shelves, there = Shelves(), Collector()
    shelves.add(
        "journal", b"<34>1 2026-01-02T00:00:01.5Z web1 sshd 812 - - Failed", b"<38>Jan  2 00:00:01 web1 a: \xff"
    )
    assert await there.taken(authority, shelves) == 0
    assert "content-type: application/x-protobuf\r\n" in there.heads[0]
    first, second = (one.scope_logs[0].log_records[0] for one in there.requests[0].resource_logs)
    assert first.body.string_value == "<34>1 2026-01-02T00:00:01.5Z web1 sshd 812 - - Failed"
    assert second.body.bytes_value == b"<38>Jan  2 00:00:01 web1 a: \xff"
    assert first.time_unix_nano == 1_767_312_001_500_000_000
    assert first.severity_number == 18
    assert second.severity_number == 9
    assert {one.key: one.value.string_value for one in first.attributes} == {
        "host.name": "web1",
        "log.record.uid": f"{HOST}/journal/0:100",
        "process.name": "sshd",
        "vedette.stream": "journal",
    }
    resource = there.requests[0].resource_logs[0].resource
    assert {one.key: one.value.string_value for one in resource.attributes} == {"host.id": HOST}


async def test_what_goes_out_is_what_our_own_listener_reads(authority: Authority) -> None:
    shelves, there = Shelves(), Collector()
    shelves.add("journal", b"Jan  2 00:00:01 web1 sshd[812]: one", b"no header")
    await there.taken(authority, shelves)
    events = Reader(1 << 20, 1 << 20).protobuf(there.bodies[0])
    assert len(events.records) == 2
    assert not events.dropped
    assert b"Jan  2 00:00:01 web1 sshd[812]: one" in events.records[0]


async def test_what_a_partial_success_left_out_is_counted(authority: Authority) -> None:
    shelves = Shelves()
    shelves.add("journal", b"one", b"two", b"three")
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 2
    assert await Collector(answer.SerializeToString()).taken(authority, shelves) == 2
    assert await Collector(b"no protobuf").taken(authority, shelves) == 0


async def test_much_goes_in_several_requests(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_http, "BODY_BYTES", 500)
    shelves, there = Shelves(), Collector()
    shelves.add("journal", *(b"%d" % number for number in range(10)))
    assert await there.taken(authority, shelves) == 0
    bodies = [
        one.scope_logs[0].log_records[0].body.string_value
        for request in there.requests
        for one in request.resource_logs
    ]
    assert bodies == [str(number) for number in range(10)]
    assert len(there.requests) > 1
    assert all(len(body) <= 500 for body in there.bodies)


async def test_hostile_names_can_be_sent(authority: Authority) -> None:
    shelves, there = Shelves(), Collector()
    shelves.add("journal", b"Jan  2 00:00:01 w\xffeb sshd[812]: one")
    assert await there.taken(authority, shelves) == 0
    assert len(there.requests) == 1
