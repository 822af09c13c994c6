"""What the tests of sources share: a counter that can be asked, and a source that runs beside the test.
Counterpart: src/vedette/sources."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum

from vedette.model.batch import Batch
from vedette.model.protocols import Source


class Counts:
    """A model Counter that remembers."""

    def __init__(self) -> None:
        self.seen: Tally[tuple[str, str]] = Tally()

    def add(self, name: str, reason: Enum | str = "", n: int = 1) -> None:
        self.seen[name, str(reason)] += n


class Collected:
    """Everything a source emitted, with a way to wait for it."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._more = asyncio.Event()

    async def emit(self, batch: Batch) -> None:
        self.batches.append(batch)
        self._more.set()

    @property
    def records(self) -> list[bytes]:
        return [batch.raw(row) for batch in self.batches for row in range(len(batch))]

    @property
    def ids(self) -> list[str]:
        return [batch.origin.record_id(int(at)) for batch in self.batches for at in batch.positions]

    async def until(self, done: Callable[[Collected], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not done(self):
                self._more.clear()
                await self._more.wait()

    async def count(self, n: int) -> list[bytes]:
        await self.until(lambda got: len(got.records) >= n)
        return self.records


@asynccontextmanager
async def running(source: Source, into: Collected | None = None) -> AsyncIterator[Collected]:
    collected = into or Collected()
    task = asyncio.create_task(source.run(collected.emit))
    try:
        yield collected
        assert not task.done() or task.exception() is None, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
