"""What a hub tells its judge: how long something waits to be stored, who belongs to the fleet; where its rules begin.
Counterpart: src/vedette/app/hub.py; what agents send is in test_arriving, the whole in tests/scenarios."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, load_rules, matcher_of
from vedette.app.hub import HubKeeping
from vedette.app.pipeline import LAKE
from vedette.config.settings import Settings
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.model.batch import Batch, Origin
from vedette.model.clock import SECOND
from vedette.model.fleet import Agent
from vedette.model.liveness import Fault
from vedette.model.shipping import BatchKey
from vedette.store.agents import Agents
from vedette.store.state import State
from vedette.testing.clock import FakeClock

HUB, AGENT = "6f1c9f5e-0000-4000-8000-0000000000ff", "6f1c9f5e-0000-4000-8000-0000000000aa"


class Hub:
    """A hub without broker and door, with time in hand."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.counters = FakeClock(), Counters()
        self.settings = Settings.model_validate({"data": folder})
        self.keeping = HubKeeping(self.settings, own.Self(HUB, "hub"), clock=self.clock, counter=self.counters)
        self.state = State(folder / "state.db")

    def put(self, number: int) -> None:
        batch = batch_of_lines([b"Jan  1 00:00:01 web1 app: one"], year=2026)
        batch = replace(batch, origin=Origin(AGENT, "file:a"), positions=np.array([0]), number=number)
        self.keeping.take_in(BatchKey(AGENT, "file:a", number), batch)

    async def told(self) -> list[Batch]:
        """The first that the source `liveness` says."""
        said: list[Batch] = []
        _, source, _ = self.keeping.sources(self.state)

        async def emit(batch: Batch) -> None:
            said.append(batch)
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(source.run(emit), 30)
        return said


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    made = Hub(tmp_path)
    yield made
    await asyncio.to_thread(made.keeping.close)
    made.state.close()


async def test_a_lake_that_takes_nothing_is_an_alert_and_its_end_ends_it(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    liveness = resources.files("vedette") / "rules" / "packs" / "liveness.yml"
    matcher = matcher_of(load_rules([Path(str(liveness))], packs=False), counter=hub.counters)
    engine = Engine(matcher, Correlator(matcher.rules, counter=hub.counters), hub.counters)
    with monkeypatch.context() as broken:
        broken.setattr(hub.keeping.lake, "flush", lambda: (_ for _ in ()).throw(OSError(28, "no room")))
        hub.put(1)
        hub.clock.advance(40 * SECOND)
        hub.put(2)
        (said,) = await hub.told()
    (finding,) = engine.process(said).findings
    assert finding.rule_id == f"liveness-{Fault.HUB_BEHIND.value}"
    await asyncio.to_thread(hub.keeping._flush)
    await asyncio.to_thread(hub.keeping._take, everything=True)
    assert hub.keeping.waiting_since == 0


async def test_under_steady_load_nothing_waits_for_long(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    flush, numbers = hub.keeping.lake.flush, itertools.count(1)

    def flush_while_more_comes() -> Sequence[BatchKey]:
        keys = flush()
        hub.put(next(numbers))
        return keys

    with monkeypatch.context() as busy:
        busy.setattr(hub.keeping.lake, "flush", flush_while_more_comes)
        hub.put(next(numbers))
        for _ in range(20):
            hub.clock.advance(2 * SECOND)
            await asyncio.to_thread(hub.keeping._flush)
            assert hub.keeping.lake.waiting
        assert hub.clock.now() - hub.keeping.waiting_since <= 2 * SECOND


async def test_who_belongs_to_the_fleet_is_read_beside_the_loop(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    read_in: list[int] = []
    agents = Agents.agents

    def noted(self: Agents) -> Sequence[Agent]:
        read_in.append(threading.get_ident())
        return agents(self)

    monkeypatch.setattr(Agents, "agents", noted)
    monkeypatch.setattr(hub.keeping, "waiting_since", hub.clock.now() - 60 * SECOND)
    assert await hub.told()
    assert read_in
    assert threading.get_ident() not in read_in


async def test_a_first_start_judges_nothing_that_the_lake_held_before(hub: Hub):
    for number in (1, 2):
        hub.put(number)
    await asyncio.to_thread(hub.keeping._flush)
    for _ in range(2):  # the second time as after a kill before anything was judged
        hub.keeping.sources(hub.state)
        assert hub.state.cursors()[LAKE] == "2"
        hub.put(3)
        await asyncio.to_thread(hub.keeping._flush)
    behind = hub.keeping.follow(int(hub.state.cursors()[LAKE]))
    assert (await anext(behind)).key.number == 3
    await behind.aclose()
