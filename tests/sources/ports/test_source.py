"""The source that looks on schedule, against a world that changes between two looks.
Counterpart: src/vedette/sources/ports/source.py."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from tests.sources.collecting import Collected, Counts, running
from tests.sources.ports.test_watch import USUAL, WHOLE, looked

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


def source(world: World, cursor: str = "", counts: Counts | None = None, **words: str) -> PortsSource:
    settings = PortsSettings.model_validate(
        {"policy": Path("/etc/ports.yml"), "every": "20ms", "critical_every": "1h", "confirm_after": "1ms", **words}
    )
    return PortsSource(settings, world, host_id="h", clock=SystemClock(), counter=counts or Counts(), cursor=cursor)


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


async def test_a_look_that_fails_ends_the_source_loudly() -> None:
    def broken(asked: Asked | None, stop: threading.Event) -> Looked:
        raise OSError(24, "too many open files")

    world = World()
    failing = source(world)
    failing._look = broken
    with pytest.raises(OSError, match="too many"):
        await failing.run(Collected().emit)
