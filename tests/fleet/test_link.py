"""What is done through the client library can be cancelled, whatever that makes of a cancellation.
Counterpart: src/vedette/fleet/link.py; tests/scenarios/test_fleet_transport.py has the real broker."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from vedette.fleet.link import cancellable


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
