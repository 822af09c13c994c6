"""Syslog out over real sockets: frames as RFC 5424 and 6587 want them, TLS with names checked, a receiver away.
Counterpart: vedette.fleet.forward_syslog."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.fleet.forwarding import Shelves, running, short, until
from tests.scenarios.parts.certificates import Authority

from vedette.app.counters import Counters
from vedette.app.forwarding import heads
from vedette.fleet.forward import Forwarder, ForwardError, ForwardReason
from vedette.fleet.forward_settings import SyslogTarget
from vedette.fleet.forward_syslog import SyslogForward, is_rfc5424
from vedette.testing.clock import FakeClock


class Collector:
    """What a receiver read, frame by frame."""

    def __init__(self) -> None:
        self.port = 0
        self.messages: list[bytes] = []
        self.connections: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; wrong framing ends it."""
        self.connections.append(writer)
        try:
            while size := await reader.readuntil(b" "):
                self.messages.append(await reader.readexactly(int(size)))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def collector(made: Collector, context: ssl.SSLContext | None = None) -> AsyncIterator[Collector]:
    server = await asyncio.start_server(made.take, "127.0.0.1", made.port, ssl=context, limit=1 << 22)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.connections:
            writer.transport.abort()
        await server.wait_closed()


def target(port: int, **more: object) -> SyslogForward:
    made = {"type": "syslog", "name": "there", "host": "127.0.0.1", "port": port, "protocol": "tcp", "timeout": 5}
    return SyslogForward(SyslogTarget.model_validate(made | more), heads())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_headers_are_made_anew_and_messages_stay_as_they_are() -> None:
    shelves = Shelves()
    put = shelves.add(
        "file:/var/log/auth.log",
        b"Jan  2 00:00:01 web1 sshd[812]: Failed password for \xff from 192.0.2.1",
        b"<13>Jan  2 00:00:02 web1 app: a\x00b",
        b"<34>1 2026-01-02T00:00:03Z web1 su - ID47 - as it is",
        b"no header at all",
    )
    async with collector(Collector()) as there:
        sending = target(there.port)
        assert await sending.send([put], 0) == 0
        await until(lambda: len(there.messages) == 4)
        await sending.close()
    first, second, third, last = there.messages
    assert first == b"<14>1 2026-01-02T00:00:01.000000Z web1 sshd 812 - - Failed password for \xff from 192.0.2.1"
    assert second == b"<13>1 2026-01-02T00:00:02.000000Z web1 app - - - a\x00b"
    assert third == put.batch.raw(2)
    assert re.fullmatch(rb"<14>1 \S+Z - - - - - no header at all", last)


async def test_by_tls_it_goes_to_whom_the_authority_names_alone(authority: Authority) -> None:
    put = Shelves().add("audit", b"one")
    async with collector(Collector(), authority.server_context()) as there:
        sending = target(there.port, protocol="tls", ca_file=str(authority.ca_file))
        await sending.send([put], 0)
        await until(lambda: there.messages)
        await sending.close()
        for wrong in ({"ca_file": ""}, {"ca_file": "/nowhere.pem"}):
            refused = target(there.port, protocol="tls", **wrong)
            with pytest.raises(ForwardError) as raised:
                await refused.send([put], 0)
            assert raised.value.reason is ForwardReason.MISCONFIGURED
    async with collector(Collector(), authority.server_context("elsewhere.example")) as other:
        with pytest.raises(ForwardError) as raised:
            await target(other.port, protocol="tls", ca_file=str(authority.ca_file)).send([put], 0)
        assert raised.value.reason is ForwardReason.MISCONFIGURED
    assert len(there.messages) == 1
    assert not other.messages


async def test_a_receiver_that_goes_and_comes_back_gets_all(tmp_path: Path) -> None:
    shelves, counters, there = Shelves(), Counters(), Collector()
    shelves.add("audit", b"1", b"2")
    async with collector(there):
        port = there.port
    sending = Forwarder(
        "there", target(port), tmp_path / "there", shelves.read, clock=FakeClock(), counter=counters, sleep=short
    )
    async with running(sending):
        await until(lambda: counters.value("forward_failed", "there:network-error"))
        async with collector(there):
            await until(lambda: len(there.messages) == 2)
        failed = counters.value("forward_failed", "there:network-error")
        shelves.add("audit", b"3")
        await until(lambda: counters.value("forward_failed", "there:network-error") > failed)
        async with collector(there):
            await until(lambda: len(there.messages) >= 3)
            shelves.add("audit", b"4")
            await until(lambda: there.messages[-1].endswith(b"4"))
    assert [message[-1:] for message in dict.fromkeys(there.messages)] == [b"1", b"2", b"3", b"4"]


async def test_what_the_receiver_does_not_take_is_not_sent_on() -> None:
    put = Shelves().add("audit", b"x" * 30_000_000)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        sending = target(deaf.getsockname()[1], timeout=0.2)
        with pytest.raises(ForwardError) as raised:
            await sending.send([put], 0)
        assert raised.value.reason is ForwardReason.TIMEOUT


@pytest.mark.parametrize(
    ("raw", "so"), [(b"<0>1 x", True), (b"<191>1 x", True), (b"<13>Jan", False), (b"<>1 x", False), (b"1 x", False)]
)
def test_what_is_rfc_5424_already(raw: bytes, so: bool) -> None:
    assert is_rfc5424(raw) is so
