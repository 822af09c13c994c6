"""The source that looks on schedule, against a world that changes between two looks.
Counterpart: src/vedette/sources/ports/source.py."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.sources.collecting import Collected, Counts, running
from tests.sources.ports.test_watch import POLICY, USUAL, WHOLE, looked

from vedette.model.batch import RecordFormat, Trust
from vedette.model.clock import SystemClock
from vedette.model.ports import PortRange, Protocol
from vedette.sources.ports.source import PortsSource
from vedette.sources.ports.watch import Asked, Looked
from vedette.sources.settings import PortsSettings


class World:
    """What answers now. looks: the ports each look asked for, None for a whole one."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.looks: list[Asked | None] = []
        self.stopped = threading.Event()

    def __call__(self, asked: Asked | None, stop: threading.Event) -> Looked:
        self.looks.append(asked)
        self.stopped = stop
        spans = WHOLE if asked is None else tuple(asked["web", Protocol.TCP])
        return looked(*self.ports, asked=spans, started_at=SystemClock().now())


def source(
    world: World,
    cursor: str = "",
    counts: Counts | None = None,
    begin: Callable[[], None] = lambda: None,
    **words: str,
) -> PortsSource:
    settings = PortsSettings.model_validate(
        {"policy": Path("/etc/ports.yml"), "every": "20ms", "critical_every": "1h", "confirm_after": "1ms", **words}
    )
    return PortsSource(
        settings,
        world,
        policy=POLICY,
        host_id="h",
        clock=SystemClock(),
        counter=counts or Counts(),
        cursor=cursor,
        begin=begin,
    )


def told(got: Collected) -> list[tuple[str, int]]:
    events = [json.loads(one) for one in got.records]
    return [(one["event"]["action"], one["destination"]["port"]) for one in events if "drift" in one["event"]["action"]]


async def test_a_drift_and_its_end_are_attested_json_with_a_cursor() -> None:
    world, counts = World(*USUAL), Counts()
    async with running(source(world, counts=counts)) as got:
        await got.until(lambda got: bool(got.batches))
        assert got.records == []  # where it stands, and nothing to say
        world.ports = (*USUAL, 8080)
        await got.until(lambda got: ("port-drifted", 8080) in told(got))
        world.ports = USUAL
        await got.until(lambda got: ("port-drift-ended", 8080) in told(got))
    assert told(got) == [("port-drifted", 8080), ("port-drift-ended", 8080)]
    assert [batch.number for batch in got.batches] == list(range(len(got.batches)))
    assert len(set(got.ids)) == len(got.ids) == 4
    for batch in got.batches:
        assert (batch.format, batch.trust, bool(batch.cursor)) == (RecordFormat.JSON, Trust.ATTESTED, True)
    assert counts.seen["port_looks", "whole"] >= 3
    assert world.stopped.is_set()


async def test_much_at_once_comes_in_parts_and_only_the_last_one_says_that_it_was_told() -> None:
    world = World(*USUAL)
    async with running(source(world, every="1h")) as got:
        await got.until(lambda got: bool(got.batches))
    before = got.batches[-1].cursor
    world.ports = (*USUAL, *range(20_000, 20_300))
    async with running(source(world, before, every="1h")) as got:
        await got.until(lambda got: bool(got.batches and got.batches[-1].cursor))
    assert len(set(got.ids)) == len(got.ids) == 600  # each port opened, and drifts
    assert [len(batch) for batch in got.batches] == [200, 200, 200]
    assert [bool(batch.cursor) for batch in got.batches] == [False, False, True]


async def test_it_goes_on_where_it_stood() -> None:
    world = World(*USUAL, 8080)
    async with running(source(world)) as got:
        await got.until(lambda got: told(got) == [("port-drifted", 8080)])
    cursor = got.batches[-1].cursor
    async with running(source(world, cursor)) as again:
        await asyncio.sleep(0.1)
        assert again.batches == []
        world.ports = USUAL
        await again.until(lambda got: told(got) == [("port-drift-ended", 8080)])
    assert not set(got.ids) & set(again.ids)


async def test_short_looks_ask_for_what_must_answer_while_a_whole_one_is_far_off() -> None:
    world = World(*USUAL)
    async with running(source(world, every="1h", critical_every="5ms")) as got:
        await got.until(lambda got: bool(got.batches))
        world.ports = (80,)
        await got.until(lambda got: ("port-drifted", 443) in told(got))
    assert world.looks[0] is None
    asked = world.looks[1]
    assert asked is not None
    assert PortRange(443, 443) in asked["web", Protocol.TCP]


async def test_what_must_answer_is_looked_at_while_the_first_whole_look_still_goes_on() -> None:
    """That of many hosts takes its time, after a restart too."""
    done = threading.Event()

    class Slow(World):
        def __call__(self, asked: Asked | None, stop: threading.Event) -> Looked:
            if asked is None:
                done.wait(10)
            return super().__call__(asked, stop)

    world = Slow(80)
    async with running(source(world, every="1h", critical_every="5ms")) as got:
        await got.until(lambda got: told(got) == [("port-drifted", 443)])
        assert None not in world.looks
        done.set()
        await got.until(lambda got: None in world.looks)


async def test_a_whole_look_does_not_tell_again_what_a_short_one_saw_end_while_it_was_confirmed() -> None:
    class Turning(World):
        """8080 is shut just after the second whole look saw it, and is none of those that prove life."""

        def __call__(self, asked: Asked | None, stop: threading.Event) -> Looked:
            began = SystemClock().now()
            seen = super().__call__(asked, stop)
            if asked is None and self.looks.count(None) == 2:
                self.ports = (22, 23, *USUAL, 9090)
                seen = looked(*self.ports, 8080, started_at=began)
                stop.wait(0.04)
            return seen

    world = Turning(22, 23, *USUAL, 8080)
    async with running(source(world, every="50ms", critical_every="5ms", confirm_after="60ms")) as got:
        await got.until(lambda got: ("port-drift-ended", 8080) in told(got) and ("port-drifted", 9090) in told(got))
        await asyncio.sleep(0.1)
    assert [action for action, port in told(got) if port == 8080] == ["port-drifted", "port-drift-ended"]


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_look_that_fails_ends_the_source_loudly_and_as_what_it_is(at: int) -> None:
    class Broken(World):
        def __call__(self, asked: Asked | None, stop: threading.Event) -> Looked:
            if len(self.looks) + 1 == at:
                raise OSError(24, "too many open files")
            return super().__call__(asked, stop)

    with pytest.raises(OSError, match="too many"):
        await source(Broken(*USUAL), critical_every="5ms").run(Collected().emit)


async def test_whoever_looks_has_begun_as_it_was_told() -> None:
    begun: set[int] = set()
    looked_in: set[int] = set()

    class Told(World):
        def __call__(self, asked: Asked | None, stop: threading.Event) -> Looked:
            looked_in.add(threading.get_ident())
            return super().__call__(asked, stop)

    world = Told(*USUAL, 8080)
    made = source(world, begin=lambda: begun.add(threading.get_ident()))
    async with running(made) as got:
        await got.until(lambda got: ("port-drifted", 8080) in told(got))
    assert looked_in
    assert looked_in <= begun
    assert threading.get_ident() not in looked_in
