"""The source `liveness`: asks on schedule what of the watching is missing, and tells it as records.
Counterpart: `fleet.completeness` judges, handed in by `app`; `rules/packs/liveness.yml` gives levels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vedette.model.clock import MINUTE, SECOND, Clock
from vedette.model.liveness import DATASET, OVER, RESTATED, STANDS, Fault, Judge, LivenessEvent
from vedette.model.liveness import NAME as NAME
from vedette.model.protocols import Counter, Emit
from vedette.sources.told import Teller
from vedette.text.times import rfc3339

_TOGETHER = 200


class LivenessSource:
    """Emits a record a fault that begins or is over; what stands is in its cursor, so a restart says nothing twice.

    gather: awaited before each look: hands the judge what is known (reports, what is stored), in this thread.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        gather: Callable[[int], Awaitable[None]] | None = None,
        every: float = 1.0,
    ) -> None:
        """every: seconds between two looks."""
        self.name = NAME
        self.begun = asyncio.Event()
        self._judge = judge
        self._teller = Teller(host_id, NAME, clock.now())
        self._clock = clock
        self._counter = counter
        self._gather = gather
        self._every = every
        self._position = 0
        self._kept_at = clock.now()
        self._restated_at = 0

    async def run(self, emit: Emit) -> None:
        """Look and emit until cancelled."""
        self.begun.set()
        while True:
            if self._gather is not None:
                await self._gather(self._clock.now())
            now = self._clock.now()
            events = self._judge.look(now)
            for event in events:
                self._counter.add("liveness_events", event.fault.value + (OVER if event.over else ""))
            # What is known of quiet hosts is kept now and then too: it must not begin anew after a restart.
            standing = self._judge.standing(now) if now - self._restated_at >= RESTATED else ()
            if events or standing or now - self._kept_at >= MINUTE:
                self._kept_at = now
                records = [record(event) for event in events]
                # What has just begun was told.
                new = {(one.fault, one.host_id, one.stream, one.reason, one.since) for one in events}
                records += [
                    record(one, STANDS)
                    for one in standing
                    if (one.fault, one.host_id, one.stream, one.reason, one.since) not in new
                ]
                cursor = self._judge.cursor()
                while len(records) > _TOGETHER:
                    # Without a cursor: until all of it is committed, all of it is told again.
                    await self._tell(emit, records[:_TOGETHER], "", now)
                    records = records[_TOGETHER:]
                await self._tell(emit, records, cursor, now)
            if now - self._restated_at >= RESTATED:
                self._restated_at = now
            await asyncio.sleep(self._every)

    async def _tell(self, emit: Emit, records: list[dict[str, object]], cursor: str, now: int) -> None:
        batch = self._teller.batch(records, self._position, cursor, now)
        self._position += len(records)
        await emit(batch)


def record(event: LivenessEvent, behind: str = "") -> dict[str, object]:
    """An event as others see it, message first; nothing that is empty. behind: its action, of one that stands."""
    about: dict[str, object] = {
        "kind": event.fault.value,
        "host_id": event.host_id or event.group or "hub",
        "stream": event.stream,
        "reason": event.reason,
        "since": rfc3339(event.since),
        "count": event.count,
        "hosts": list(event.hosts),
        "resumed": event.resumed,
        "host_ids": list(event.host_ids),
    }
    made: dict[str, object] = {
        "message": words(event),
        "@timestamp": rfc3339(event.at),
        "event": {
            "kind": "state",
            "category": ["host"],
            "action": event.fault.value + (OVER if event.over else behind),
            "dataset": DATASET,
        },
        "vedette": {"liveness": {name: value for name, value in about.items() if value not in ("", 0, [])}},
    }
    if event.host_id:
        made["host"] = {"id": event.host_id, "name": event.host_name or event.host_id}
    return made


def words(event: LivenessEvent) -> str:
    """The event as a person reads it."""
    who = event.host_name or event.host_id or "hub"
    if event.fault is Fault.AGENTS_ABSENT:
        who = f"{event.count} hosts"
    what = event.fault.value.replace("-", " ")
    stream = f" {event.stream}" if event.stream else ""
    if event.over:
        return f"{who}{stream}: {what}: over after {max(event.at - event.since, 0) // SECOND} s"
    reason = f": {event.reason}" if event.reason else ""
    count = f" ({event.count})" if event.count and event.fault is not Fault.AGENTS_ABSENT else ""
    names = f": {', '.join(event.hosts[:10])}" if event.hosts else ""
    return f"{who}{stream}: {what}{reason}{count} since {rfc3339(event.since)}{names}"
