"""What is spooled reaches the hub once and in full, whatever is lost, repeated or reordered on the way.
Counterpart: vedette.fleet.shipper."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.fleet import messages, shipper
from vedette.fleet.link import LinkError
from vedette.fleet.messages import Confirm
from vedette.fleet.shipper import Self, Shipper
from vedette.fleet.spool import Spool
from vedette.model.batch import Batch, Origin
from vedette.model.fleet import LinkReason
from vedette.model.shipping import BatchKey, Lane, Report
from vedette.testing.clock import FakeClock

HOST = "host"


def batch(position: int, source: str = "a", size: int = 10) -> Batch:
    block = random.Random(position).randbytes(size)
    zero, end = np.array([0], dtype=np.int64), np.array([size], dtype=np.int64)
    return Batch(Origin(HOST, source), 0, block, zero, end, np.array([position], dtype=np.int64), 7, cursor="c")


class Hub:
    """Stands for broker, hub and the way there. chance: below `trouble`, something goes wrong."""

    def __init__(self, chance: Callable[[], float] = lambda: 1.0, trouble: float = 0.0) -> None:
        self.chance, self.trouble = chance, trouble
        self.there: dict[str, set[int]] = {}
        self.order: list[tuple[Lane, str, int]] = []
        self.published: list[BatchKey] = []
        self.reports: list[Report] = []
        self.repeats = 0
        self.away = False
        self.holding = False
        self.reason = LinkReason.CUT
        self.confirms: list[bytes] = []

    async def publish(self, key: BatchKey, lane: Lane, packed: bytes, seconds: float = 1.0) -> None:
        await asyncio.sleep(0)
        if self.away or self.chance() < self.trouble:
            raise LinkError(self.reason, "away")
        self.published.append(key)
        if self.chance() < self.trouble or self.holding:
            return
        found = messages.unpack_event(packed)
        first, last, stream = (
            (found[0].number, found[0].number, found[0].stream)
            if isinstance(found, tuple)
            else (found.first, found.last, found.stream)
        )
        there = self.there.setdefault(stream, set())
        self.repeats += first in there
        there.update(range(first, last + 1))
        self.order.append((lane, stream, last))
        if self.chance() < self.trouble:
            # It was kept, and the acknowledgement got lost.
            raise LinkError(self.reason, "cut")

    async def report(self, packed: bytes, seconds: float = 1.0) -> None:
        self.reports.append(messages.unpack_report(packed))

    async def ask(self, packed: bytes, seconds: float = 1.0) -> bytes:
        messages.unpack_report(packed)
        if self.away:
            raise LinkError(self.reason, "away")
        return self.confirm()

    def confirm(self, **more: object) -> bytes:
        through, beyond = {}, {}
        for stream, there in self.there.items():
            last = 0
            while last + 1 in there:
                last += 1
            through[stream] = last
            beyond[stream] = tuple((number, number) for number in sorted(there) if number > last)
        packed = messages.pack_confirm(Confirm(HOST, 1, through, beyond, **more))  # type: ignore[arg-type]
        self.confirms.append(packed)
        return packed


class Side:
    """A spool and a shipper to a hub."""

    def __init__(self, folder: Path, hub: Hub, window: int = 16 << 20) -> None:
        self.hub, self.clock, self.counter = hub, FakeClock(), Counters()
        self.spool = Spool(folder, HOST, clock=self.clock, counter=self.counter, split=_split)
        me = Self(HOST, "web", "1", lambda: {})
        self.shipper = Shipper(self.spool, hub, me, clock=self.clock, counter=self.counter, window=window)

    def put(self, *batches: Batch) -> None:
        for each in batches:
            self.spool.put(each)
        assert self.spool.settled(30)

    async def run(self, until: Callable[[], bool], confirm: Callable[[], None] = lambda: None) -> None:
        """Run until that holds; the clock goes on and the hub confirms meanwhile."""
        task = asyncio.create_task(self.shipper.run())
        try:
            async with asyncio.timeout(20):
                while not until():
                    await asyncio.sleep(0.002)
                    confirm()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.spool.close()


def _split(each: Batch) -> list[tuple[str, Lane, Batch]]:
    return [(each.origin.source, Lane.SECURITY if each.origin.source == "s" else Lane.BULK, each)]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "_LONGEST_PAUSE", 0.002)
    monkeypatch.setattr(shipper, "_SHORTEST_PAUSE", 0.001)
    monkeypatch.setattr(shipper, "_LOOK_EVERY", 0.01)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), streams=st.lists(st.sampled_from("asb"), min_size=1, max_size=20))
async def test_all_arrives_and_is_freed_whatever_the_way_does(
    seed: int, streams: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    dice = random.Random(seed)
    hub = Hub(dice.random, 0.25)
    side = Side(tmp_path_factory.mktemp("ship"), hub)
    wanted: dict[str, set[int]] = {}
    for position, stream in enumerate(streams):
        side.put(batch(position, stream))
        wanted.setdefault(stream, set()).add(len(wanted.get(stream, ())) + 1)

    def confirm() -> None:
        hub.confirm()
        # Late, twice, out of order, or never; and sometimes a broken one.
        side.shipper.confirmed(dice.choice(hub.confirms))
        side.shipper.confirmed(dice.choice(hub.confirms)[: dice.randrange(30)])
        side.clock.advance(dice.randrange(shipper.AGAIN_AFTER))

    await side.run(lambda: side.spool.waiting == 0, confirm)
    assert hub.there == wanted


async def test_security_goes_first_and_order_is_kept(tmp_path: Path) -> None:
    hub = Hub()
    side = Side(tmp_path, hub)
    side.put(*(batch(position, "as"[position % 2]) for position in range(20)))
    await side.run(lambda: len(hub.order) == 20)
    assert hub.order[:10] == [(Lane.SECURITY, "s", number) for number in range(1, 11)]
    assert hub.order[10:] == [(Lane.BULK, "a", number) for number in range(1, 11)]


async def test_the_window_bounds_what_is_under_way_and_acknowledgements_free_nothing(tmp_path: Path) -> None:
    hub = Hub()
    hub.holding = True
    side = Side(tmp_path, hub, window=50_000)
    side.put(*(batch(position, size=9_000) for position in range(20)))
    stopped: list[int] = []

    def look() -> None:
        stopped.append(len(hub.published))

    await side.run(lambda: len(stopped) > 30 and stopped[-30] == stopped[-1] > 0, look)
    assert 5 <= len(hub.published) <= 6
    assert sum(1 for _ in side.spool.pending()) == 20


async def test_what_the_hub_asks_for_is_sent_again(tmp_path: Path) -> None:
    hub = Hub()
    side = Side(tmp_path, hub)
    side.put(batch(0), batch(1), batch(2))
    asked: list[int] = []

    def confirm() -> None:
        if len(hub.order) == 3 and not asked:
            # What was behind the gap was confirmed, and is lost after all.
            side.shipper.confirmed(messages.pack_confirm(Confirm(HOST, 1, {"a": 1}, {"a": ((3, 3),)})))
            side.shipper.confirmed(messages.pack_confirm(Confirm(HOST, 1, {"a": 1}, {}, {"a": ((3, 3),)})))
            asked.append(1)

    await side.run(lambda: hub.repeats > 0, confirm)
    assert (Lane.BULK, "a", 3) in hub.order[3:]
    assert (Lane.BULK, "a", 1) not in hub.order[3:]


async def test_a_hub_that_comes_back_is_asked_and_gets_what_it_lacks(tmp_path: Path) -> None:
    hub = Hub()
    hub.away = True
    hub.there = {"a": {1, 2}}
    side = Side(tmp_path, hub)
    side.put(batch(0), batch(1), batch(2))

    def back() -> None:
        if hub.away and side.counter.value("questions_failed"):
            hub.away = False
            side.shipper.connected()

    await side.run(lambda: 3 in hub.there["a"], back)
    side.shipper.confirmed(hub.confirm())
    assert side.spool.waiting == 0


async def test_what_is_too_large_for_the_broker_holds_up_nothing(tmp_path: Path) -> None:
    hub = Hub()
    side = Side(tmp_path, hub)
    real = hub.publish

    async def publish(key: BatchKey, lane: Lane, packed: bytes, seconds: float = 1.0) -> None:
        if key.number == 1:
            raise LinkError(LinkReason.TOO_LARGE, "")
        await real(key, lane, packed, seconds)

    hub.publish = publish  # type: ignore[method-assign]
    side.put(batch(0), batch(1), batch(2))
    await side.run(lambda: hub.there.get("a") == {2, 3})
    assert side.counter.value("shipping_failed", LinkReason.TOO_LARGE) == 1


async def test_reports_count_up_and_the_last_says_so(tmp_path: Path) -> None:
    hub = Hub()
    side = Side(tmp_path, hub)
    side.put(batch(0))
    await side.run(lambda: len(hub.reports) > 0)
    first, last = hub.reports[0], hub.reports[-1]
    assert first.session == last.session
    assert [each.sequence for each in hub.reports] == sorted({each.sequence for each in hub.reports})
    assert (first.stopping, last.stopping) == (False, True)
    assert last.sources["a"].number == 1
    assert last.spooled > 0


def test_what_is_no_confirm_of_ours_changes_nothing(tmp_path: Path) -> None:
    side = Side(tmp_path, Hub())
    side.put(batch(0))
    side.shipper.confirmed(b"junk")
    side.shipper.confirmed(messages.pack_confirm(Confirm("another", 1, {"a": 1})))
    assert side.counter.value("confirms_refused", "not-ours") == 1
    assert side.counter.value("confirms_refused", "other-host") == 1
    assert side.spool.waiting > 0
    side.spool.close()
