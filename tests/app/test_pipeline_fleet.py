"""What leaves an agent with a commit, and what a hub makes of it: the shelf, the stream of findings, the lake's order.
Counterpart: src/vedette/app/pipeline.py, src/vedette/app/findings_stream.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import orjson
import pytest
from tests.app.parts import ATTACKER, FakeEnforcer, Rig

from vedette.app.counters import Counters
from vedette.app.findings_stream import STREAM, FindingsStream, Refused, findings_of
from vedette.app.hub_engine import HubEngine
from vedette.model.alerts import AlertState
from vedette.model.batch import Batch, Origin, Trust
from vedette.model.clock import SECOND
from vedette.model.levels import Level
from vedette.model.rules import Rule, RuleKind, Scope

AGENT = "6f1c9f5e-0000-4000-8000-00000000a9e7"


class FakeShelf:
    """Keeps what it is given; `works` says whether it says so."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.works = True
        self.asked = 0

    def put(self, batch: Batch) -> None:
        self.batches.append(batch)

    def settled(self, timeout: float) -> bool:
        assert timeout > 0
        self.asked += 1
        return self.works


@pytest.fixture
def shelf() -> FakeShelf:
    return FakeShelf()


def told_by_agent(shelf: FakeShelf) -> Batch:
    agent = Rig(shelf=shelf, stream=FindingsStream("h", 7))
    agent.attack()
    found = [batch for batch in shelf.batches if batch.origin.source == STREAM]
    assert len(found) == 1
    return found[0]


def test_a_finding_is_on_the_shelf_before_it_is_committed_and_once(shelf: FakeShelf):
    rig = Rig(shelf=shelf, stream=FindingsStream("h", 7))
    rig.state.refusing = True
    rig.attack()
    assert [batch.origin.source for batch in shelf.batches] == [STREAM]
    assert shelf.batches[0].trust is Trust.ATTESTED
    rig.state.refusing = False
    rig.clock.advance(5 * SECOND)
    rig.pipeline.tick()
    assert len(rig.state.recent_findings()) == 1
    assert len(shelf.batches) == 1


def test_the_first_cursor_of_a_source_comes_with_what_was_found(shelf: FakeShelf):
    rig = Rig(shelf=shelf)
    rig.attack()
    assert shelf.asked == 1
    assert rig.state.cursors() == {"journal": "3"}


def placed(shelf: FakeShelf, **more: Any) -> Rig:
    """One whose source has a place in the state already."""
    rig = Rig(shelf=shelf, **more)
    rig.take(rig.line("other"))
    rig.wait(2 * SECOND)
    shelf.asked = 0
    return rig


def test_a_slow_shelf_does_not_hold_up_a_block(shelf: FakeShelf):
    enforcer = FakeEnforcer()
    rig = placed(shelf, enforcers=[enforcer])
    shelf.works = False
    rig.attack()
    assert [one.target.value for one in rig.state.active_decisions(0)] == [ATTACKER]
    assert [one.value for one in enforcer.held] == [ATTACKER]
    assert shelf.asked == 0
    assert rig.state.cursors() == {"journal": "1"}
    # The cursor comes behind it, and waits for the shelf, not for ever.
    rig.wait(2 * SECOND)
    assert rig.state.cursors() == {"journal": "4"}
    assert rig.counters.value("commits_before_the_shelf") == shelf.asked == 1


def test_a_block_that_came_before_its_cursor_is_not_made_twice_after_a_crash(shelf: FakeShelf):
    enforcer = FakeEnforcer()
    rig = placed(shelf, enforcers=[enforcer])
    rig.attack()
    (alert,), decisions = rig.state.alerts(), rig.state.active_decisions(0)
    read = rig.last
    rig.start()
    rig.pipeline.take(read)
    rig.wait(2 * SECOND)
    assert rig.state.alerts() == [alert]
    assert rig.state.active_decisions(0) == decisions
    assert enforcer.calls.count("add") == 1
    assert rig.state.cursors() == {"journal": "4"}


def test_under_an_attack_without_end_cursors_move_on(shelf: FakeShelf):
    rig = placed(shelf)
    for number in range(20):
        rig.attack(f"203.0.113.{number + 1}")
        rig.clock.advance(SECOND // 5)
    assert len(rig.state.recent_findings()) == 20
    assert shelf.asked == 3
    assert int(rig.state.cursors()["journal"]) > 45


def test_the_end_leaves_no_cursor_behind(shelf: FakeShelf):
    rig = Rig(shelf=shelf)
    rig.attack()
    rig.pipeline.close()
    assert rig.state.cursors() == {"journal": "3"}


def test_what_an_agent_found_is_an_alert_on_the_hub_and_no_decision_there(shelf: FakeShelf):
    batch = told_by_agent(shelf)
    finding = orjson.loads(orjson.loads(batch.raw(0))["vedette.finding"])
    finding["host_id"] = AGENT
    record = orjson.dumps({**orjson.loads(batch.raw(0)), "vedette.finding": orjson.dumps(finding).decode()})
    batch = replace(batch, origin=replace(batch.origin, host_id=AGENT), block=record, ends=batch.starts + len(record))
    hub = Rig(hub=True, enforcers=[FakeEnforcer()])
    hub.pipeline.take_stored(batch, 41)
    assert [alert.labels["source.ip"] for alert in hub.state.alerts()] == [ATTACKER]
    assert hub.state.active_decisions(0) == []
    assert hub.state.cursors()["lake"] == "41"
    # Stored twice it is one finding all the same.
    hub.pipeline.take_stored(batch, 42)
    assert [alert.finding_count for alert in hub.state.alerts()] == [1]


def test_hosts_with_the_same_line_of_the_same_moment_are_two_findings_on_the_hub(shelf: FakeShelf):
    batch = told_by_agent(shelf)
    hub = Rig(hub=True)
    for number, host_id in enumerate((AGENT, AGENT.replace("a9e7", "a9e8"))):
        finding = orjson.loads(orjson.loads(batch.raw(0))["vedette.finding"])
        finding["host_id"] = host_id
        record = orjson.dumps({"vedette.finding": orjson.dumps(finding).decode()})
        told = replace(
            batch, origin=replace(batch.origin, host_id=host_id), block=record, ends=batch.starts + len(record)
        )
        hub.pipeline.take_stored(told, number + 1)
    assert len(hub.state.recent_findings()) == 2


def test_what_cannot_be_judged_is_passed_over_and_does_not_come_again(
    shelf: FakeShelf, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_given: object) -> None:
        raise ValueError("hostile")

    monkeypatch.setattr(HubEngine, "process_stored", fail)
    hub = Rig(hub=True)
    hub.pipeline.take_stored(replace(told_by_agent(shelf), origin=Origin(AGENT, "journal")), 41)
    assert hub.counters.value("stored_unjudged") == 1
    hub.wait(5 * SECOND)
    hub.pipeline.tick()
    assert hub.state.cursors()["lake"] == "41"


def test_a_lake_that_refuses_is_an_alert_until_it_is_written_again_over_a_restart():
    rig = Rig()

    def look() -> list[AlertState]:
        rig.clock.advance(SECOND)
        rig.pipeline.tick()
        rig.clock.advance(2 * SECOND)
        rig.pipeline.tick()
        return [alert.state for alert in rig.alerts_of("vedette-lake-refused")]

    assert look() == []
    rig.trouble = "no room"
    assert look() == [AlertState.OPEN]
    assert look() == [AlertState.OPEN]
    rig.start()
    rig.trouble = ""
    assert look() == [AlertState.RESOLVED]
    assert look() == [AlertState.RESOLVED]


def test_an_agent_speaks_of_its_own_host_alone(shelf: FakeShelf):
    batch = told_by_agent(shelf)
    counters = Counters()
    assert findings_of(replace(batch, origin=replace(batch.origin, host_id=AGENT)), counters, {}) == []
    assert counters.value("findings_refused", Refused.OF_ANOTHER_HOST) == 1


@pytest.mark.parametrize("record", [b"", b"[]", b"1", b'{"vedette.finding": 1}', b'{"vedette.finding": "{}"}', b"\xff"])
def test_what_is_no_finding_is_counted(shelf: FakeShelf, record: bytes):
    batch = told_by_agent(shelf)
    counters = Counters()
    assert (
        findings_of(
            replace(batch, block=record, starts=batch.starts * 0, ends=batch.starts * 0 + len(record)), counters, {}
        )
        == []
    )
    assert counters.value("findings_refused", Refused.UNREADABLE) == 1


FLEET_RULE = Rule(id="spread", name="spread", level=Level.HIGH, scope=Scope.FLEET, kind=RuleKind.CONDITION)
HOSTILE = [
    ({"time": 2**70}, Refused.NUMBER),
    ({"created": -1}, Refused.NUMBER),
    ({"count": 2**63}, Refused.NUMBER),
    ({"key": {"user.name": 2**64}}, Refused.NUMBER),
    ({"sample": "x" * (1 << 20)}, Refused.TOO_LARGE),
    ({"key": {"host.id": "another"}}, Refused.OF_ANOTHER_HOST),
    ({"key": {"host.id": None}}, Refused.OF_ANOTHER_HOST),
    ({"rule_id": "spread"}, Refused.OF_THE_HUB),
    ({"clears": "spread"}, Refused.OF_THE_HUB),
    ({"level": 99}, Refused.UNREADABLE),
]


@pytest.mark.parametrize(("changed", "reason"), HOSTILE)
def test_a_hostile_finding_is_refused(shelf: FakeShelf, changed: dict[str, Any], reason: Refused):
    batch = told_by_agent(shelf)
    made = orjson.loads(orjson.loads(batch.raw(0))["vedette.finding"])
    finding = {**made, "host_id": batch.origin.host_id, **changed}
    record = orjson.dumps({"vedette.finding": msgspec.json.encode(finding).decode()})
    starts = batch.starts * 0
    counters = Counters()
    sent = replace(batch, block=record, starts=starts, ends=starts + len(record))
    assert findings_of(sent, counters, {"spread": FLEET_RULE}) == []
    assert counters.value("findings_refused", reason) == 1
