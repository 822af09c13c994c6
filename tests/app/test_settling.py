"""Senders are answered once what they sent is kept, and wait in one thread, however many and slow it is.
Counterpart: src/vedette/app/settling.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from vedette.app.settling import Settling

LONG = 30.0


class SlowShelf:
    """Settles when it is let; what it answers then."""

    def __init__(self) -> None:
        self.lost = 0
        self.answer = True
        self.asked = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def settled(self, timeout: float) -> bool:
        self.asked.release()
        assert self.let.acquire(timeout=LONG)
        return self.answer


@pytest.fixture
def shelf() -> SlowShelf:
    return SlowShelf()


@pytest.fixture
async def settling(shelf: SlowShelf) -> AsyncIterator[Settling]:
    made = Settling(shelf)
    yield made
    shelf.let.release(9)
    await made.close()


async def begun(shelf: SlowShelf) -> None:
    assert await asyncio.to_thread(shelf.asked.acquire, True, LONG)


async def test_many_senders_on_a_slow_disk_leave_threads_to_others(shelf: SlowShelf, settling: Settling) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    senders = [asyncio.create_task(settling.kept()) for _ in range(20)]
    await asyncio.wait_for(begun(shelf), LONG)
    senders += [asyncio.create_task(settling.kept()) for _ in range(20)]
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "there is one"), LONG) == "there is one"
    shelf.let.release(9)
    assert await asyncio.wait_for(asyncio.gather(*senders), LONG) == [None] * 40


async def test_who_comes_while_others_wait_is_answered_by_the_next_look(shelf: SlowShelf, settling: Settling) -> None:
    first = asyncio.create_task(settling.kept())
    await asyncio.wait_for(begun(shelf), LONG)
    second = asyncio.create_task(settling.kept())
    shelf.let.release()
    await asyncio.wait_for(first, LONG)
    await asyncio.wait_for(begun(shelf), LONG)
    assert not second.done()
    shelf.let.release()
    await asyncio.wait_for(second, LONG)


@pytest.mark.parametrize(("answer", "lost"), [(False, 0), (True, 1)])
async def test_what_is_not_kept_is_said(shelf: SlowShelf, settling: Settling, answer: bool, lost: int) -> None:
    shelf.answer = answer
    sender = asyncio.create_task(settling.kept())
    await asyncio.wait_for(begun(shelf), LONG)
    shelf.lost += lost
    shelf.let.release()
    with pytest.raises(OSError, match="could not be kept"):
        await asyncio.wait_for(sender, LONG)


async def test_a_sender_that_goes_takes_nobody_with_it(shelf: SlowShelf, settling: Settling) -> None:
    gone, stays = (asyncio.create_task(settling.kept()) for _ in range(2))
    await asyncio.wait_for(begun(shelf), LONG)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    shelf.let.release()
    await asyncio.wait_for(stays, LONG)
