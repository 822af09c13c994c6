"""Two engines as one: who judges what, what fleet rules bring with them, state kept apart and taken up again.
Counterpart: src/vedette/app/hub_engine.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, matcher_of
from vedette.app.hub_engine import HubEngine, parted
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.model.batch import Batch, Origin
from vedette.model.levels import Level
from vedette.model.rules import (
    Comparison,
    Correlate,
    CorrelationKind,
    LogSource,
    Op,
    Rule,
    Scope,
    Test,
    Threshold,
)

SSHD = LogSource(product="linux", service="sshd")
BASE = Rule(
    id="base",
    name="base",
    level=Level.LOW,
    logsource=SSHD,
    when=Test("event.action", Op.EQUALS, ("ssh-login-failed",)),
)
SPREAD = Rule(
    id="spread",
    name="spread",
    level=Level.HIGH,
    scope=Scope.FLEET,
    correlate=Correlate(
        CorrelationKind.VALUE_COUNT,
        ("base",),
        ("source.ip",),
        600_000_000,
        (Threshold(Comparison.GTE, 2),),
        fields=("host.id",),
    ),
)
LINE = b"Jan  1 00:00:0%d host sshd[1]: Failed password for root from 192.0.2.1 port 1 ssh2"


def engine(rules: list[Rule]) -> Engine:
    matcher = matcher_of(rules, counter=Counters())
    return Engine(matcher, Correlator(matcher.rules, counter=Counters(), track=True), Counters())


def hub() -> HubEngine:
    own, fleet = parted([BASE, SPREAD])
    return HubEngine(engine(own), engine(fleet))


def read_by(host: str, second: int) -> Batch:
    batch = batch_of_lines([LINE % second], year=2026)
    return replace(batch, origin=Origin(host, "file:/var/log/auth.log"), positions=np.array([second]))


def test_a_fleet_rule_brings_what_it_rests_on_and_that_is_silent_there():
    own, fleet = parted([BASE, SPREAD])
    assert [rule.id for rule in own] == ["base"]
    assert [(rule.id, rule.silent) for rule in fleet] == [("base", True), ("spread", False)]


def test_own_records_meet_host_rules_and_stored_ones_fleet_rules():
    one = hub()
    assert [finding.rule_id for finding in one.process(read_by("a", 1)).findings] == ["base"]
    assert one.process_stored(read_by("a", 1)).findings == []
    found = one.process_stored(read_by("b", 2)).findings
    assert [finding.rule_id for finding in found] == ["spread"]
    assert {record.record_id.split("/")[0] for record in found[0].records} == {"a", "b"}


def test_state_of_both_is_kept_apart_and_taken_up_again():
    one = hub()
    one.process(read_by("a", 1))
    one.process_stored(read_by("a", 1))
    kept = [(rule_id, key, state) for (rule_id, key), state in one.correlator.changes().items() if state is not None]
    assert {rule_id.startswith("fleet ") for rule_id, _, _ in kept} == {True, False}
    two = hub()
    two.correlator.restore(kept)
    assert two.correlator.highest == one.correlator.highest
    assert [finding.rule_id for finding in two.process_stored(read_by("b", 2)).findings] == ["spread"]


def test_windows_of_both_close_and_both_clocks_are_set_back():
    one = hub()
    one.process_stored(read_by("a", 1))
    assert one.correlator.advance(one.correlator.highest + 1).findings == []
    before = one.correlator.highest
    one.correlator.set_back(before - 3_600_000_000)
    assert one.correlator.highest < before
