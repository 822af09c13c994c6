"""Senders that want to be told wait until what they sent is on the disk: one thread waits for all of them.
Counterpart: `sources` (RELP, HTTP) acknowledge by it; the shelf's `settled` says when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

WITHIN = 10.0
"""Seconds the disk may take for what one look finds; a sender waits for two of them at most."""


class _Shelf(Protocol):
    @property
    def lost(self) -> int: ...
    def settled(self, timeout: float) -> bool: ...


class Settling:
    """`kept` for any number of senders, in the loop's thread; `close` once nobody asks any more.

    A thread each would be more than there are on a disk that is slow, and what else needs one would stand still.
    """

    def __init__(self, shelf: _Shelf, initializer: Callable[[], object] | None = None) -> None:
        """initializer: run in the thread at first."""
        self._shelf = shelf
        self._thread = ThreadPoolExecutor(1, "kept", initializer=initializer)
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[bool] | None = None
        self._waits: set[asyncio.Task[bool]] = set()

    async def kept(self) -> None:
        """Until everything put so far is on the disk; OSError where it is not, so that senders send it again."""
        lost = self._shelf.lost
        if self._next is None:
            self._next = asyncio.create_task(self._wait())
            self._waits.add(self._next)
            self._next.add_done_callback(self._waits.discard)
        # Others wait for it too.
        if not await asyncio.shield(self._next) or self._shelf.lost > lost:
            raise OSError("what was received could not be kept")

    async def _wait(self) -> bool:
        async with self._one_at_a_time:
            # What is put from now on is of the next.
            self._next = None
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._shelf.settled, WITHIN)

    async def close(self) -> None:
        """Wait for nothing more."""
        for task in list(self._waits):
            task.cancel()
        await asyncio.gather(*self._waits, return_exceptions=True)
        self._thread.shutdown(wait=False)
