"""What is done through the client library can be cancelled, whatever that makes of a cancellation.
Counterpart: src/vedette/fleet/link.py; tests/scenarios/test_fleet_transport.py has the real broker."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from urllib.parse import urlparse

import pytest
import trustme
from nats.aio.transport import TcpTransport

from vedette.app.counters import Counters
from vedette.fleet.link import Endpoint, Link, cancellable


async def swallows(started: asyncio.Event) -> None:
    """As nats-py's flush does."""
    started.set()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)


async def test_a_cancellation_that_was_swallowed_ends_the_task():
    started = asyncio.Event()
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            with cancellable():
                await swallows(started)

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rounds == 1


async def test_a_limit_of_time_stays_one():
    async def work() -> None:
        async with asyncio.timeout(0.01):
            with cancellable():
                await swallows(asyncio.Event())

    with pytest.raises(TimeoutError):
        await work()


async def test_what_is_done_at_the_end_of_a_cancelled_task_goes_on():
    done: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            with cancellable():
                await asyncio.sleep(0)
            done.append("the last word")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["the last word"]


@pytest.mark.parametrize("linked", [False, True])
async def test_the_end_of_a_connection_by_tls_is_no_warning(
    linked: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logging.getLogger("asyncio"), "filters", [])
    authority, server_side, client_side = (
        trustme.CA(),
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(),
    )
    authority.issue_cert("localhost").configure_cert(server_side)
    authority.configure_trust(client_side)
    if linked:
        Link(Endpoint((), client_side, "_INBOX"), lambda _: asyncio.sleep(0), Counters())

    async def close_at_once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close_at_once, "127.0.0.1", 0, ssl=server_side)
    async with server:
        place = urlparse(f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        client = TcpTransport()
        await client.connect(place, 1 << 16, 10)
        await client.connect_tls("localhost", client_side, 1 << 16, 10)
        assert await asyncio.wait_for(client.read(1), 10) == b""
        client.close()
        with suppress(OSError):
            await client.wait_closed()
    said = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert any("eof_received" in one for one in said) is not linked
