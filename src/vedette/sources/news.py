"""The source `vedette`: what this program has to say of the fleet's control, as records like any other.
Counterpart: `app.agent` and `app.hub` say it; `rules/packs/fleet.yml` gives levels, the hub reads what agents said."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

from vedette.model.clock import Clock
from vedette.model.protocols import Emit
from vedette.sources.told import Teller
from vedette.text.times import rfc3339

NAME = "vedette"
DATASET = "vedette.fleet"
MOST_WAITING = 10_000
_AT_ONCE = 500


class NewsSource:
    """Emits what was said, in order. `say` is safe from any thread, also before it runs."""

    def __init__(self, host_id: str, clock: Clock) -> None:
        self.name = NAME
        self.begun = asyncio.Event()
        self._clock = clock
        self._teller = Teller(host_id, NAME, clock.now())
        self._waiting: list[dict[str, object]] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._position = 0

    def say(self, action: str, message: str, about: Mapping[str, object], *, outcome: str = "") -> None:
        """action: past tense; message: for people; about: what stands under `vedette.fleet`. The oldest go first."""
        event: dict[str, object] = {
            "kind": "event",
            "category": ["configuration"],
            "action": action,
            "dataset": DATASET,
        }
        record: dict[str, object] = {
            "message": message,
            "@timestamp": rfc3339(self._clock.now()),
            "event": {**event, "outcome": outcome} if outcome else event,
            "vedette": {"fleet": {name: value for name, value in about.items() if value not in ("", None)}},
        }
        with self._lock:
            self._waiting.append(record)
            del self._waiting[:-MOST_WAITING]
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled."""
        self._loop = asyncio.get_running_loop()
        self.begun.set()
        while True:
            self._news.clear()
            with self._lock:
                records, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            if not records:
                await self._news.wait()
                continue
            batch = self._teller.batch(records, self._position, "", self._clock.now())
            self._position += len(records)
            await emit(batch)
