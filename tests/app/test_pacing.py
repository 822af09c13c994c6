"""Busy sources: the first batch at once, then what comes goes together, in order, whole, and nothing of security waits.
Counterpart: vedette.app.pacing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.app import pacing
from vedette.app.pacing import Pacing, is_paced, joined
from vedette.fleet.lanes import select
from vedette.model.batch import Batch, GivenHeader, Origin, Trust, lines_of

NEVER = 1e6


def batch(
    first: int,
    *records: bytes,
    source: str = "file:a",
    trust: Trust | None = Trust.FORGEABLE,
    header: bool = False,
    dropped: int = 0,
    cursor: str = "c",
) -> Batch:
    block, starts, ends = lines_of(records)
    n = len(records)
    levels = np.arange(n, dtype=np.uint8) % 3
    numbers = np.arange(first, first + n, dtype=np.int64)
    return Batch(
        Origin("host", source),
        0,
        block,
        starts,
        ends,
        numbers,
        first,
        trust=levels if trust is None else trust,
        header=GivenHeader(numbers, [f"h{at}" for at in numbers], ["p"] * n, numbers + 5) if header else None,
        cursor=cursor and f"{cursor}{first}",
        dropped={"late": dropped} if dropped else {},
    )


def raws(one: Batch) -> list[bytes]:
    return [one.raw(row) for row in range(len(one))]


class Taken:
    """What went on; the engine takes it at once, unless it is told to be `busy`."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.busy = False
        self.events: list[asyncio.Event] = []
        self.came = asyncio.Event()

    def put(self, one: Batch) -> asyncio.Event:
        self.batches.append(one)
        self.events.append(asyncio.Event())
        if not self.busy:
            self.events[-1].set()
        self.came.set()
        return self.events[-1]

    @property
    def records(self) -> list[list[bytes]]:
        return [raws(one) for one in self.batches]


def paced(
    run: Callable[[Pacing, Taken], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, every: float = NEVER
) -> Taken:
    monkeypatch.setattr(pacing, "EVERY", every)

    async def main() -> Taken:
        taken = Taken()
        await run(Pacing(taken.put, lambda one: b"!" in one.block), taken)
        return taken

    return asyncio.run(main())


def test_the_first_goes_at_once_and_the_rest_is_kept_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(one: Pacing, taken: Taken) -> None:
        for number in range(4):
            await one.emit(batch(number, b"%d" % number))
        await one.emit(batch(0, b"other", source="file:b"))
        assert taken.records == [[b"0"], [b"other"]]
        one.close()

    taken = paced(run, monkeypatch)
    assert taken.records == [[b"0"], [b"other"], [b"1", b"2", b"3"]]
    assert taken.batches[-1].cursor == "c3"


def test_what_is_of_security_goes_at_once_behind_what_came_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(one: Pacing, taken: Taken) -> None:
        for number, record in enumerate([b"a", b"b", b"c!"]):
            await one.emit(batch(number, record))

    assert paced(run, monkeypatch).records == [[b"a"], [b"b", b"c!"]]


def test_what_is_held_goes_on_when_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(one: Pacing, taken: Taken) -> None:
        await one.emit(batch(0, b"a"))
        taken.came.clear()
        await one.emit(batch(1, b"b"))
        await one.emit(batch(2, b"c"))
        await taken.came.wait()

    assert paced(run, monkeypatch, 0.01).records[:2] == [[b"a"], [b"b", b"c"]]


def test_one_batch_of_a_source_waits_for_the_engine_and_the_next_one_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(one: Pacing, taken: Taken) -> None:
        taken.busy = True
        first = asyncio.create_task(one.emit(batch(0, b"a")))
        await asyncio.sleep(0)
        await one.emit(batch(1, b"b"))
        await asyncio.sleep(0.05)
        await one.emit(batch(2, b"c"))
        assert taken.records == [[b"a"]]
        taken.came.clear()
        taken.events[0].set()
        await first
        await taken.came.wait()

    assert paced(run, monkeypatch, 0.01).records == [[b"a"], [b"b", b"c"]]


def test_much_goes_on_and_its_source_waits_until_the_engine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "MOST", 8)

    async def run(one: Pacing, taken: Taken) -> None:
        await one.emit(batch(0, b"a"))
        await one.emit(batch(1, b"1234"))
        taken.busy = True
        waits = asyncio.create_task(one.emit(batch(2, b"5678")))
        await asyncio.sleep(0)
        assert taken.records[1:] == [[b"1234", b"5678"]]
        assert not waits.done()
        taken.events[-1].set()
        await waits

    paced(run, monkeypatch)


def test_sources_that_are_silent_are_forgotten_and_what_is_held_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_MANY", 3)

    async def run(one: Pacing, taken: Taken) -> None:
        await one.emit(batch(0, b"a"))
        await one.emit(batch(1, b"b"))
        monkeypatch.setattr(pacing, "EVERY", 0)
        for number in range(20):
            await one.emit(batch(0, b"x", source=f"file:{number}"))
        assert len(one._sources) <= 4
        one.close()

    assert paced(run, monkeypatch).records[-1] == [b"b"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("file:/a", True), ("journal", True), ("syslog", True), ("relp", False), ("http", False), ("otlp", False)],
)
def test_whoever_is_answered_once_it_is_stored_is_not_kept_waiting(name: str, wanted: bool) -> None:
    assert is_paced(name) is wanted


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([b"", b"a", b"bc", b"\xff\0"]), max_size=3),
            st.sampled_from([Trust.FORGEABLE, Trust.ATTESTED, None]),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_several_as_one_are_the_same_records(parts: list[tuple[list[bytes], Trust | None, int]], header: bool) -> None:
    made, first = [], 0
    for records, trust, dropped in parts:
        made.append(batch(first, *records, trust=trust, dropped=dropped, header=header))
        first += len(records)
    (one,) = joined(made)
    assert raws(one) == [raw for each in made for raw in raws(each)]
    assert one.positions.tolist() == list(range(first))
    trusts = [each.trust_of(row) for each in made for row in range(len(each))]
    assert [one.trust_of(row) for row in range(len(one))] == trusts
    assert one.dropped.get("late", 0) == sum(dropped for _, _, dropped in parts)
    assert (one.cursor, one.read_at) == (made[-1].cursor, made[-1].read_at)
    if header:
        assert one.header is not None
        assert one.header.time.tolist() == one.positions.tolist()
        assert one.header.pid.tolist() == (one.positions + 5).tolist()
        assert one.header.host == [f"h{at}" for at in range(first)]
        assert len(one.header.program) == first


def test_records_do_not_touch_where_a_block_ends_without_a_line_end() -> None:
    first = batch(0, b"ab")
    first = replace(first, block=b"ab")
    (one,) = joined([first, batch(1, b"cd")])
    assert (raws(one), one.block) == ([b"ab", b"cd"], b"ab\ncd\n")


@pytest.mark.parametrize(
    "other",
    [
        replace(batch(5, b"b"), origin=Origin("host", "file:a", "1")),
        replace(batch(5, b"b"), timezone="Europe/Vienna"),
        replace(batch(5, b"b"), year=2025),
        replace(batch(5, b"b"), spooled=True),
        batch(5, b"b", header=True),
        batch(5, b"b", cursor=""),
        batch(0, b"b"),
    ],
    ids=["generation", "timezone", "year", "spooled", "header", "no cursor", "from the beginning again"],
)
def test_what_is_read_another_way_stays_apart(other: Batch) -> None:
    assert [raws(one) for one in joined([batch(3, b"a"), other])] == [[b"a"], [b"b"]]


def test_a_batch_without_records_between_hides_no_beginning_anew() -> None:
    cut = joined([batch(3, b"a"), batch(0, dropped=1), batch(1, b"b")])
    assert [raws(one) for one in cut] == [[b"a"], [b"b"]]
    together = joined([batch(3, b"a"), batch(0, dropped=1), batch(4, b"b")])
    assert [raws(one) for one in together] == [[b"a", b"b"]]


def test_parts_of_a_joined_batch_are_those_of_its_batches() -> None:
    (one,) = joined([batch(0, b"a", b"b"), batch(2, b"c", b"d")])
    chosen = np.array([False, True, True, False])
    assert raws(select(one, chosen)) == [b"b", b"c"]


def test_all_sources_together_hold_no_more_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "MOST_TOGETHER", 100)
    names = [f"file:{name}" for name in "abcd"]

    async def run(one: Pacing, taken: Taken) -> None:
        for name in names:
            await one.emit(batch(0, b"first", source=name))
        taken.busy = True
        await one.emit(batch(1, b"x" * 40, source=names[0]))
        await one.emit(batch(1, b"y" * 40, source=names[1]))
        assert len(taken.batches) == 4
        # With these it is too much: each waits with its own, and the others are held as before.
        waiting = [asyncio.create_task(one.emit(batch(1, b"z" * 40, source=name))) for name in names[2:]]
        await asyncio.sleep(0)
        assert taken.records[4:] == [[b"z" * 40], [b"z" * 40]]
        assert not any(task.done() for task in waiting)
        for event in taken.events:
            event.set()
        await asyncio.gather(*waiting)
        # What the engine has does not count any more.
        await one.emit(batch(2, b"held", source=names[2]))
        assert len(taken.batches) == 6

    paced(run, monkeypatch)


def test_a_timer_that_comes_early_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(one: Pacing, taken: Taken) -> None:
        await one.emit(batch(0, b"a"))
        await one.emit(batch(1, b"b"))
        source = one._sources["file:a"]
        assert source.timer is not None
        # As where the clock has not come round to its time by a tick.
        one._due(source)
        assert taken.records == [[b"a"], [b"b"]]
        # And what is held after it has a timer again.
        await one.emit(batch(2, b"c"))
        assert source.timer is not None

    paced(run, monkeypatch)
