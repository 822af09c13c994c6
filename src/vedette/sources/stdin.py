"""Standard input, to its end: for pipes and for trying things out.
Counterpart: lines.py cuts it as it cuts files; there is no cursor, what was piped is gone."""

from __future__ import annotations

import asyncio
import os

from vedette.model.batch import Batch, Origin
from vedette.model.clock import Clock
from vedette.model.protocols import Counter, Emit
from vedette.model.reasons import DropReason
from vedette.sources.lines import Cut, Lines
from vedette.sources.settings import StdinSettings, zone_name

CHUNK = 1 << 20


class StdinSource:
    """Reads `descriptor` (standard input) until it ends; a last line without its newline counts.

    The descriptor is not closed: it is not this source's own.
    """

    def __init__(
        self, settings: StdinSettings, *, host_id: str, clock: Clock, counter: Counter, descriptor: int = 0
    ) -> None:
        self.name = "stdin"
        self._settings = settings
        self._timezone = zone_name(settings.timezone)
        self._host_id = host_id
        self._clock = clock
        self._counter = counter
        self._descriptor = descriptor
        self._lines = Lines(settings)
        self._number = 0
        self.begun = asyncio.Event()

    async def run(self, emit: Emit) -> None:
        """Read and emit until the end of the input."""
        self.begun.set()
        clock = asyncio.get_running_loop().time
        while True:
            if not await self._readable():
                await self._give(emit, self._lines.flush(clock()))
                continue
            data = os.read(self._descriptor, CHUNK)
            if not data:
                break
            await self._give(emit, self._lines.feed(data, clock()))
        await self._give(emit, self._lines.finish())

    async def _readable(self) -> bool:
        """Wait until a read would not block; False when held lines are due first."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except PermissionError:
            await asyncio.sleep(0)
            return True  # a regular file: always readable, and not for epoll
        try:
            async with asyncio.timeout_at(self._lines.due):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._descriptor)
        return True

    async def _give(self, emit: Emit, cut: Cut | None) -> None:
        lines = self._lines
        found = {DropReason.RECORD_TOO_LONG: lines.too_long, DropReason.MULTILINE_OVERFLOW: lines.overflowed}
        dropped = {reason.value: n for reason, n in found.items() if n}
        for reason, n in dropped.items():
            self._counter.add("source_dropped", reason, n)
        if lines.split:
            self._counter.add("source_audit_split", n=lines.split)
        lines.too_long = lines.overflowed = lines.holes = lines.split = 0
        if cut is None:
            return
        number, self._number = self._number, self._number + 1
        await emit(
            Batch(
                origin=Origin(self._host_id, self.name),
                number=number,
                block=cut.block,
                starts=cut.starts,
                ends=cut.ends,
                positions=cut.positions,
                read_at=self._clock.now(),
                format=self._settings.format,
                timezone=self._timezone,
                # What is piped in may be of any age; that says nothing of a clock.
                spooled=True,
                dropped=dropped,
            )
        )
