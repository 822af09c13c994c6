"""The source `ports`: looks on schedule, looks again before it says anything, and tells what changed as records.
Counterpart: `watch` decides what is said; `app.port_watch` gives the look, with policy and inventories behind it."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from vedette.model.clock import Clock
from vedette.model.ports import PortPolicy
from vedette.model.protocols import Counter, Emit
from vedette.sources.ports.watch import Asked, Looked, Watch
from vedette.sources.settings import PortsSettings, seconds
from vedette.sources.told import Teller
from vedette.text.times import parse_duration

log = structlog.get_logger()

NAME = "ports"
_TOGETHER = 200
"""Records in a batch: a block may have to wait while the engine is at one."""
Look = Callable[[Asked | None, threading.Event], Looked]
"""Looks at everything (None) or at some ports of some hosts; blocks, and ends early when the event is set."""


class PortsSource:
    """Emits `port-drifted`, `port-drift-ended`, `port-opened` and `port-closed`; what is open lives in its cursor.

    A whole look every `every`, a short one (what must answer, what drifts) every `critical_every`; both vary by a
    tenth, so that nobody can be shut just when we look.
    """

    def __init__(
        self,
        settings: PortsSettings,
        look: Look,
        *,
        policy: PortPolicy,
        host_id: str,
        clock: Clock,
        counter: Counter,
        cursor: str = "",
        begin: Callable[[], None] = lambda: None,
        chance: random.Random | None = None,
    ) -> None:
        """policy: as it is now; each whole look brings the one that then holds. StateError for a newer cursor.

        begin: called in each thread that looks, before it does.
        """
        self.name = NAME
        self.begun = asyncio.Event()
        self._settings = settings
        self._look = look
        self._teller = Teller(host_id, NAME, clock.now())
        self._clock = clock
        self._counter = counter
        self._watch = Watch.restored(cursor, parse_duration(settings.could_not_tell_limit))
        self._said = self._watch.cursor()
        self._chance = chance or random.SystemRandom()
        self._policy = policy
        self._stop = threading.Event()
        # A whole look and a short one.
        self._threads = ThreadPoolExecutor(2, NAME, initializer=begin)
        self._judging = asyncio.Lock()
        """Looks overlap; what one of them doubts and finds out must not change meanwhile."""

    async def run(self, emit: Emit) -> None:
        """Look and emit until cancelled, a look under way is then ended early; raises what ended a look for good."""
        self.begun.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_critical(emit))
                tasks.create_task(self._watch_all(emit))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._stop.set()
            self._threads.shutdown(wait=False)

    async def _watch_all(self, emit: Emit) -> None:
        """A whole look takes its time; the short ones do not wait for it."""
        loop = asyncio.get_running_loop()
        every = seconds(self._settings.every)
        began = loop.time()
        while True:
            began = loop.time()
            await self._round(emit, None)
            took = loop.time() - began
            if took > every:
                self._counter.add("port_looks_late")
                log.warning("ports: a whole look takes longer than `every`", seconds=round(took))
            await asyncio.sleep(self._varied(every) - took)

    async def _watch_critical(self, emit: Emit) -> None:
        while True:
            await asyncio.sleep(self._varied(seconds(self._settings.critical_every)))
            async with self._judging:
                asked = self._watch.wanted(self._policy)
            if asked:
                await self._round(emit, asked)

    async def _round(self, emit: Emit, asked: Asked | None) -> None:
        loop = asyncio.get_running_loop()
        looked = await loop.run_in_executor(self._threads, self._look, asked, self._stop)
        async with self._judging:
            again: Looked | None = None
            if looked.whole:
                self._policy = looked.policy
            if doubtful := self._watch.doubtful(looked):
                await asyncio.sleep(seconds(self._settings.confirm_after))
                again = await loop.run_in_executor(self._threads, self._look, doubtful, self._stop)
            self._counter.add("port_looks", "whole" if asked is None else "short")
            now = self._clock.now()
            first = self._watch.position
            # Of thousands of drifts that takes its time, and other sources read in this thread.
            records = await asyncio.to_thread(self._watch.take, looked, again, now)
            cursor = self._watch.cursor()
            while len(records) > _TOGETHER:
                # Without a cursor: until all of it is committed, all of it is told again.
                await emit(self._teller.batch(records[:_TOGETHER], first, "", now))
                records, first = records[_TOGETHER:], first + _TOGETHER
            if records or cursor != self._said:
                self._said = cursor
                await emit(self._teller.batch(records, first, cursor, now))

    def _varied(self, period: float) -> float:
        return period * self._chance.uniform(0.9, 1.1)
