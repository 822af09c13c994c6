from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.notify.examples import Counts
from tests.notify.servers import Echo

from vedette.model.clock import MINUTE, SECOND
from vedette.notify.heartbeat import Heartbeat
from vedette.notify.settings import HeartbeatSettings
from vedette.testing.clock import START, FakeClock


async def test_it_beats_only_while_the_engine_lives(clock: FakeClock, counts: Counts):
    async with Echo() as server:
        heart = Heartbeat(HeartbeatSettings.model_validate({"url": server.url}), lambda: START, clock, counts)
        clock.advance(2 * MINUTE)
        assert await heart.beat()
        clock.advance(SECOND)
        assert not await heart.beat()
        await heart.close()
    assert [request.line for request in server.requests] == ["GET / HTTP/1.1"]
    assert counts.of("heartbeat_sent") == {"": 1}
    assert counts.of("heartbeat_withheld") == {"": 1}


async def test_it_beats_on_until_cancelled(clock: FakeClock, counts: Counts):
    beaten = asyncio.Event()

    def last_sign() -> int:
        if counts.of("heartbeat_sent").get("", 0) >= 3:
            beaten.set()
        return clock.now()

    async with Echo() as server:
        settings = HeartbeatSettings.model_validate({"url": server.url, "method": "POST", "interval": "1ms"})
        task = asyncio.create_task(Heartbeat(settings, last_sign, clock, counts).run())
        await beaten.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert {request.line for request in server.requests} == {"POST / HTTP/1.1"}


async def test_failures_are_counted_and_said_once(
    clock: FakeClock, counts: Counts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = HeartbeatSettings.model_validate({"url": {"file": str(tmp_path / "absent")}})
    heart = Heartbeat(settings, clock.now, clock, counts)
    assert not await heart.beat()
    assert not await heart.beat()
    await heart.close()
    assert counts.of("heartbeat_failed") == {"misconfigured": 2}
    assert capsys.readouterr().out.count("nowhere to go") == 1
