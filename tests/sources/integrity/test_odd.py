"""Hosts that differ are told once, change, and are over; what nobody can compare now is neither told nor over.
Counterpart: src/vedette/sources/integrity/odd.py; its rules are in rules/packs/odd.yml."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import orjson
import pytest

from vedette.app.counters import Counters
from vedette.app.detection import load_rules, matcher_of
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.model.batch import Batch
from vedette.model.errors import StateError
from vedette.sources.integrity.alike import Told
from vedette.sources.integrity.odd import MANY, Gathered, OddSource, Rewritten
from vedette.testing.clock import FakeClock

HOSTS = [f"id{number}" for number in range(212)]
NAMES = {host: f"web{number}" for number, host in enumerate(HOSTS)}


class Stop(Exception):
    """Enough was heard."""


class Fleet:
    """What each host tells of set-uid files; looked at as often as is asked for."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.facts: dict[str, list[str]] = {host: ["/usr/bin/su = 4755/0/0"] for host in HOSTS}
        self.groups: dict[str, list[str]] = {"web": HOSTS}
        self.rewritten: Sequence[Rewritten] = ()
        self.cursor = ""
        self.broken = False

    def gather(self, through: int) -> Gathered:
        if self.broken:
            raise StateError("no lake")
        told = Told()
        for host, facts in self.facts.items():
            told.add(
                {
                    "event.action": "facts-told",
                    "host.id": host,
                    "@timestamp": "2026-03-01T10:00:00.000000Z",
                    "vedette.rootkit.kind": "set-uid-files",
                    "vedette.rootkit.facts": facts,
                }
            )
        return Gathered(told, self.groups, NAMES, self.rewritten, through + 1)

    def look(self) -> list[Batch]:
        """One look of a source that has just begun, from where the last one ended."""
        said: list[Batch] = []

        async def emit(batch: Batch) -> None:
            said.append(batch)
            self.cursor = batch.cursor or self.cursor

        looks = iter((self.gather,))

        def once(through: int) -> Gathered:
            look = next(looks, None)
            if look is None:
                raise Stop
            return look(through)

        source = OddSource(once, host_id="hub", clock=FakeClock(), counter=self.counters, cursor=self.cursor, every=0)
        with pytest.raises(Stop):
            asyncio.run(source.run(emit))
        return said

    def records(self) -> list[dict[str, Any]]:
        return [orjson.loads(batch.raw(row)) for batch in self.look() for row in range(len(batch))]


def test_one_of_212_differs_until_it_does_not() -> None:
    fleet = Fleet()
    assert fleet.records() == []
    fleet.facts["id7"].append("/tmp/sh = 4755/0/0")
    (begins,) = fleet.records()
    assert begins["message"] == (
        "1 of 212 of group web differ: set-uid-files /tmp/sh: 4755/0/0, on the others not there: web7"
    )
    assert begins["event"]["action"] == "hosts-differ"
    assert fleet.records() == []
    fleet.facts["id8"].append("/tmp/sh = 4755/0/0")
    (more,) = fleet.records()
    assert more["vedette"]["integrity"]["odd"]["hosts"] == ["web7", "web8"]
    fleet.facts["id7"].pop()
    fleet.facts["id8"].pop()
    (over,) = fleet.records()
    assert over["event"]["action"] == "hosts-differ-over"
    assert over["vedette"]["integrity"]["odd"]["key"] == "/tmp/sh"
    assert fleet.records() == []


def test_the_pack_makes_an_alert_of_it_that_ends_by_itself() -> None:
    pack = resources.files("vedette") / "rules" / "packs" / "odd.yml"
    fleet = Fleet()
    matcher = matcher_of(load_rules([Path(str(pack))], packs=False), counter=fleet.counters)
    engine = Engine(matcher, Correlator(matcher.rules, counter=fleet.counters), fleet.counters)
    fleet.facts["id7"].append("/tmp/sh = 4755/0/0")
    begun = [one for batch in fleet.look() for one in engine.process(batch).findings]
    fleet.facts["id7"].pop()
    ended = [one for batch in fleet.look() for one in engine.process(batch).findings]
    assert [one.rule_id for one in begun] == ["odd-entry"]
    assert [one.rule_id for one in ended] == ["odd-entry-over"]
    assert begun[0].key == ended[0].key


def test_what_cannot_be_compared_now_is_not_over() -> None:
    fleet = Fleet()
    fleet.facts["id7"].append("/tmp/sh = 4755/0/0")
    assert len(fleet.records()) == 1
    facts, fleet.facts = fleet.facts, {}
    assert fleet.records() == []
    fleet.facts = {host: facts[host] for host in HOSTS[:3]}
    assert fleet.records() == []
    fleet.broken = True
    assert fleet.records() == []
    assert fleet.counters.value("odd_looks_failed") == 1
    fleet.broken, fleet.facts = False, facts
    assert fleet.records() == []
    fleet.groups = {"other": HOSTS[:1]}
    assert [one["event"]["action"] for one in fleet.records()] == ["hosts-differ-over"]


def test_hosts_are_held_against_their_own_group() -> None:
    fleet = Fleet()
    fleet.groups = {"web": HOSTS[:100], "db": HOSTS[100:], "": []}
    for host in HOSTS[100:]:
        fleet.facts[host].append("/usr/lib/pg = 4755/0/0")
    assert fleet.records() == []
    fleet.facts["id150"].pop()
    (begins,) = fleet.records()
    assert begins["vedette"]["integrity"]["odd"]["group"] == "db"
    assert begins["message"].startswith("1 of 112 of group db differ")


def test_a_host_that_is_otherwise_in_many_things_is_told_once() -> None:
    fleet = Fleet()
    fleet.facts["id7"] += [f"/opt/{number} = 4755/0/0" for number in range(MANY + 1)]
    (begins,) = fleet.records()
    assert begins["vedette"]["integrity"]["odd"]["key"] == "*"
    assert f"{MANY + 1} set-uid-files" in begins["message"]


def test_a_host_that_told_of_none_has_none_and_one_that_told_nothing_is_not_compared() -> None:
    fleet = Fleet()
    fleet.facts["id7"] = []
    del fleet.facts["id8"]
    (begins,) = fleet.records()
    assert begins["vedette"]["integrity"]["odd"]["hosts"] == ["web7"]
    assert begins["vedette"]["integrity"]["odd"]["of"] == 211


@pytest.mark.parametrize(("anew", "words"), [(False, "is not the one it told before"), (True, "was made anew")])
def test_a_baseline_that_was_rewritten_is_told(anew: bool, words: str) -> None:
    fleet = Fleet()
    fleet.rewritten = [Rewritten("id7", "00ff", anew)]
    (told,) = fleet.records()
    assert told["message"] == f"web7: its integrity baseline {words}: 00ff"
    assert told["host"] == {"id": "id7", "name": "web7"}


def test_a_cursor_that_cannot_be_read_is_counted_and_all_is_told_again() -> None:
    fleet = Fleet()
    fleet.facts["id7"].append("/tmp/sh = 4755/0/0")
    fleet.cursor = "nonsense"
    assert len(fleet.records()) == 1
    assert fleet.counters.value("odd_cursors_unread") == 1
