"""Batches in a lake that tests of sending on read, and what else they share.
Counterpart: test_forward*.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np

from vedette.app.detection import batch_of_lines
from vedette.fleet.forward import Forwarder
from vedette.model.batch import Batch, Origin
from vedette.model.shipping import BatchKey
from vedette.testing.clock import START

HOST = "6f1c9f5e-0000-4000-8000-00000000a9e7"


@dataclass(frozen=True)
class Put:
    """A batch, and where it stands."""

    sequence: int
    key: BatchKey
    batch: Batch


@dataclass
class Shelves:
    """What `Lake.read` gives, from a list."""

    put: list[Put] = field(default_factory=list)

    def add(self, stream: str, *lines: bytes, host: str = HOST) -> Put:
        """One more batch."""
        made = batch_of_lines(lines, year=2026)
        number = len(self.put) + 1
        positions = np.arange(100 * number, 100 * number + len(lines), dtype=np.int64)
        batch = replace(made, origin=Origin(host, stream), positions=positions, read_at=START)
        self.put.append(Put(number, BatchKey(host, stream, number), batch))
        return self.put[-1]

    def read(self, after: int, limit: int) -> Sequence[Put]:
        """As the lake's."""
        return [one for one in self.put if one.sequence > after][:limit]


@asynccontextmanager
async def running(forwarder: Forwarder) -> AsyncIterator[None]:
    """It runs meanwhile."""
    task = asyncio.create_task(forwarder.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def short(seconds: float) -> None:
    """A pause, cut."""
    await asyncio.sleep(min(seconds, 0.005))


async def until(met: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until `met()`."""
    async with asyncio.timeout(seconds):
        while not met():  # noqa: ASYNC110 (what is met is told by nobody)
            await asyncio.sleep(0.005)
