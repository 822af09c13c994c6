"""What a hub reads from its lake: newest facts of those in the fleet, attested ones alone, and baselines' descent.
Counterpart: src/vedette/app/odd_watch.py, over a real lake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.app.search_parts import put_batch

from vedette.app.counters import Counters
from vedette.app.odd_watch import gathered
from vedette.model.batch import Batch, Trust
from vedette.model.fleet import Agent, AgentState
from vedette.sources.integrity.odd import Gathered
from vedette.sources.integrity.records import record
from vedette.sources.integrity.source import ADVANCED, BEGAN, HELD
from vedette.sources.rootkit.traces import facts_record
from vedette.sources.told import Teller
from vedette.store.lake.lake import Lake
from vedette.testing.clock import FakeClock

A, B = "11111111-1111-4111-8111-11111111111a", "11111111-1111-4111-8111-11111111111b"


class Place:
    """A lake, and agents that tell."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.lake = Lake(folder, clock=self.clock, counter=Counters())
        self.numbers = 0
        self.agents = [Agent(host, f"name-{host[-1]}", "web", AgentState.ACTIVE, "", "", "", 0, 0) for host in (A, B)]

    def tell(self, host: str, stream: str, *records: dict[str, Any], trust: Trust = Trust.ATTESTED) -> None:
        batch: Batch = Teller(host, stream, 0).batch(list(records), 0, "", self.clock.now())
        self.numbers += 1
        put_batch(self.lake, replace(batch, number=self.numbers, trust=trust))
        self.lake.flush()

    def baseline(self, action: str, digest: str, before: str = "", host: str = A) -> None:
        about = {"vedette.integrity.digest": digest, "vedette.integrity.before.digest": before}
        self.tell(host, "integrity", record(action, action, self.clock.now(), about))

    def gathered(self, through: int = 0) -> Gathered:
        return gathered(self.lake, self.agents, through, self.clock.now())

    def rewritten(self, through: int = 0) -> list[tuple[str, bool]]:
        return [(one.digest, one.anew) for one in self.gathered(through).rewritten]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.lake.close()


def test_the_newest_facts_of_those_in_the_fleet(place: Place) -> None:
    place.tell(A, "rootkit", facts_record("units", {"old": "1"}, place.clock.now()))
    place.clock.advance(1_000_000)
    place.tell(A, "rootkit", facts_record("units", {"new": "1"}, place.clock.now()))
    place.tell("11111111-1111-4111-8111-11111111111c", "rootkit", facts_record("units", {"x": "1"}, 0))
    found = place.gathered()
    assert [(one.host, one.key) for one in found.told.facts()] == [(A, "new")]
    assert found.groups == {"web": [A, B]}
    assert found.names[A] == "name-a"


def test_what_only_passed_through_a_host_is_not_believed(place: Place) -> None:
    place.tell(A, "rootkit", facts_record("units", {"forged": "1"}, place.clock.now()), trust=Trust.NETWORK)
    place.tell(A, "file:/x", facts_record("units", {"forged": "1"}, place.clock.now()))
    assert place.gathered().told.facts() == []


def test_each_baseline_comes_from_the_one_before(place: Place) -> None:
    place.baseline(BEGAN, "d1")
    place.baseline(ADVANCED, "d2", "d1")
    place.baseline(HELD, "d2")
    place.baseline(ADVANCED, "d3", "d2")
    assert place.rewritten() == []


def test_one_that_was_rewritten_is_found_when_it_is_held_or_goes_on(place: Place) -> None:
    place.baseline(BEGAN, "d1")
    place.baseline(HELD, "evil")
    place.baseline(BEGAN, "b1", host=B)
    place.baseline(ADVANCED, "b3", "b2", host=B)
    assert place.rewritten() == [("evil", False), ("b2", False)]


def test_one_made_anew_is_told_once(place: Place) -> None:
    place.baseline(BEGAN, "d1")
    place.baseline(BEGAN, "d2")
    assert place.rewritten() == [("d2", True)]
    through = place.gathered().through
    assert place.rewritten(through) == []
    place.baseline(HELD, "d2")
    assert place.rewritten(through) == []


def test_where_nothing_older_is_held_nothing_is_said(place: Place) -> None:
    place.baseline(HELD, "d7")
    place.baseline(ADVANCED, "d8", "d7")
    assert place.rewritten() == []
