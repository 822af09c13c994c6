"""The lake kept small and young: files joined, what is old let go, by a thread that takes what the others leave.
Counterpart: `store.lake` does it, the ledger is told in the same transaction; `app.keeping` starts it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from sqlalchemy import Connection

from vedette.model.clock import MINUTE, Clock
from vedette.model.protocols import Counter
from vedette.store.lake.lake import Lake
from vedette.store.lake.manifest import Tombstone
from vedette.store.lake.settings import LakeSettings
from vedette.store.ledger.leaves import Batches, ErasureKind
from vedette.store.ledger.ledger import Ledger

log = structlog.get_logger()

EVERY = 60.0
ROUNDS_OF_RETENTION = 60
"""Nothing is let go before the first hour is over: a clock that was wrong at the start has been set by then."""
JUMP = 10 * MINUTE
"""By how much the wall clock may go otherwise than time does; if more, nothing is let go for its age this round."""
NICE = 19


class Tidying:
    """Runs from its making to `close`. What fails is counted and tried again at the next round.

    erased: called when single records were.
    """

    def __init__(
        self,
        lake: Lake,
        ledger: Ledger,
        settings: LakeSettings,
        *,
        clock: Clock,
        counter: Counter,
        steady: Callable[[], float] = time.monotonic,
        every: float = EVERY,
        erased: Callable[[], None] = lambda: None,
    ) -> None:
        self._lake, self._ledger, self._settings = lake, ledger, settings
        self._clock, self._counter, self._steady, self._every = clock, counter, steady, every
        self._on_erased, self._last_erased = erased, 0
        self._offset = self._behind()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidying")
        self._thread.start()

    def close(self) -> None:
        """End soon, also in the midst of it: what was not finished was not begun."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        rounds = 0
        while not self._ended.wait(self._every):
            rounds += 1
            try:
                self.look_for_erasures()
                self._lake.compact(self._ended.is_set)
                if rounds % ROUNDS_OF_RETENTION == 0:
                    self.let_go()
            except Exception as error:  # noqa: BLE001 (a full disk, a damaged file: the lake goes on without)
                self._counter.add("lake_not_tidied", type(error).__name__)
                log.warning("the lake could not be tidied", reason=str(error))

    def look_for_erasures(self) -> None:
        """Another program erased records: no copy is to lie where they came through. Once after each start, too."""
        last = self._lake.last_erased()
        if last != self._last_erased:
            self._on_erased()
            self._last_erased = last

    def let_go(self) -> Sequence[Tombstone]:
        """What is too old or too much; nothing right after the clock was set."""
        offset, before = self._behind(), self._offset
        self._offset = offset
        if abs(offset - before) > JUMP:
            self._counter.add("lake_retention_postponed")
            log.warning("the clock was set: nothing in the lake is let go for an hour")
            return []
        return self._lake.retain(self._settings.retention, self._erased, self._ended.is_set)

    def _behind(self) -> int:
        return self._clock.now() - int(self._steady() * 1_000_000)

    def _erased(self, connection: Connection, stones: Sequence[Tombstone]) -> None:
        for reason in sorted({stone.reason for stone in stones}):
            what = [
                Batches(stone.host_id, stone.stream, stone.first, stone.last)
                for stone in stones
                if stone.reason == reason
            ]
            self._ledger.erase(connection, what, kind=ErasureKind.RETENTION, who="retention", why=reason)
