"""Many agents in one process: each enrolled, with shelf, shipper and connection of its own; run as a program.
Counterpart: `bench.logging_fleet` starts it beside a real hub, and counts what it says it has sent."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, deque
from pathlib import Path
from statistics import quantiles

import numpy as np

from bench.logging_lines import Lines
from vedette.app.counters import Counters
from vedette.app.host import host_id
from vedette.fleet.enrolment import Membership, enrol
from vedette.fleet.messages import unpack_confirm
from vedette.fleet.shipper import Self, Shipper
from vedette.fleet.spool import Spool
from vedette.fleet.transport import AgentTransport
from vedette.model.batch import Batch, Origin, Trust, split_lines
from vedette.model.clock import SystemClock

STREAM = "file:/var/log/app.log"
_LAST = 60.0


class Simulated:
    """One agent; a batch of `lines` every second until `until`, its numbers beginning with 0."""

    def __init__(self, member: Membership, folder: Path, lines: int, seed: int) -> None:
        self.member, self._lines = member, lines
        self._clock, self.counters = SystemClock(), Counters()
        self._made = Lines(rate=lines, file=True, seed=seed)
        self.spool = Spool(folder / "spool", member.host_id, clock=self._clock, counter=self.counters)
        self.sent = self.batches = self._position = 0
        self._put_at: deque[float] = deque()
        self.lags: list[float] = []

    async def run(self, until: float) -> None:
        """Put, ship, and wait until the hub has confirmed all."""
        shipper: Shipper | None = None

        def confirmed(packed: bytes) -> None:
            through = unpack_confirm(packed).through.get(STREAM, 0)
            while self._put_at and self.batches - len(self._put_at) < through:
                self.lags.append(time.monotonic() - self._put_at.popleft())
            if shipper is not None:
                shipper.confirmed(packed)

        transport = AgentTransport(
            self.member.host_id,
            self.member.endpoint(),
            self.counters,
            on_confirm=confirmed,
            on_connected=lambda: shipper.connected() if shipper is not None else None,
        )
        me = Self(self.member.host_id, f"sim-{self.member.host_id[:8]}", "bench", self.spool.states)
        shipper = Shipper(self.spool, transport, me, clock=self._clock, counter=self.counters)
        async with transport:
            shipping = asyncio.create_task(shipper.run())
            due = time.monotonic()
            while due < until:
                self.put()
                due += 1.0
                await asyncio.sleep(max(due - time.monotonic(), 0))
            ended = time.monotonic() + _LAST
            while self._put_at and time.monotonic() < ended:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            shipping.cancel()
            await asyncio.gather(shipping, return_exceptions=True)
        await asyncio.to_thread(self.spool.close)

    def put(self) -> None:
        """The lines of one second."""
        block = self._made.block(self._lines)
        starts, ends = split_lines(block)
        batch = Batch(
            Origin(self.member.host_id, STREAM, "1"),
            self.batches,
            block,
            starts,
            ends,
            starts + np.int64(self._position),
            self._clock.now(),
            trust=Trust.FORGEABLE,
            cursor=str(self.batches + 1),
        )
        self._put_at.append(time.monotonic())
        self.batches += 1
        self._position += len(block)
        self.sent += self._lines
        self.spool.put(batch)


async def _main(folder: Path, hub: str, token: str, agents: int, lines: int, seconds: float) -> None:
    made = []
    for number in range(agents):
        home = folder / f"agent{number:03d}"
        home.mkdir(mode=0o700)
        member = await enrol(hub, token, home, host_id=host_id(home), name=f"sim{number:03d}")
        made.append(Simulated(member, home, lines, number))
    print("enrolled", flush=True)
    until = time.monotonic() + seconds
    await asyncio.gather(*(one.run(until) for one in made))
    lags = [lag for one in made for lag in one.lags]
    dropped: Counter[str] = Counter()
    for one in made:
        for state in one.spool.states().values():
            dropped.update(state.dropped)
    said = {
        "sent": {one.member.host_id: one.sent for one in made},
        "dropped": sum(dropped.values()),
        "lag_median": quantiles(lags, n=100)[49],
        "lag_99": quantiles(lags, n=100)[98],
        "lag_most": max(lags),
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(
        _main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
    )
