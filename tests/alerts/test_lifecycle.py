"""From findings to alerts and how they end.
Counterpart: vedette.alerts.lifecycle."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.alerts.parts import HOST, RULES, START, Stage, finding, unresolved_keys

from vedette.alerts import lifecycle
from vedette.alerts.lifecycle import AlertError
from vedette.model.alerts import AlertState, ChangeKind, Disposition, ResolveReason
from vedette.model.clock import DAY, HOUR, MINUTE
from vedette.model.findings import EVIDENCE_LIMIT, Continuation
from vedette.model.levels import Level

A = "198.51.100.1"


@pytest.fixture
def stage() -> Stage:
    return Stage()


def kinds(changes: object) -> list[tuple[str, str]]:
    assert isinstance(changes, list)
    return [(change.alert.rule_id, change.kind.value) for change in changes]


def test_the_first_finding_opens_and_the_next_adds(stage: Stage):
    assert kinds(stage.findings([finding("guess", A, START - 5, count=5)])) == [("guess", "opened")]
    stage.now += MINUTE
    assert kinds(stage.findings([finding("guess", A, START + 7)])) == [("guess", "updated")]
    alert = stage.find("guess", A)
    assert (alert.state, alert.count, alert.finding_count) == (AlertState.OPEN, 6, 2)
    assert (alert.opened_at, alert.updated_at, alert.last_event_at) == (START, START + MINUTE, START + 7)
    assert alert.summary == f"Guess: source.ip={A} on web01"
    assert alert.advice == "look"
    assert alert.sample == f"a line about {A}"
    assert [f.rule_id for f in stage.store.findings(alert.finding_ids)] == ["guess", "guess"]


def test_many_findings_of_one_call_are_one_change(stage: Stage):
    found = [finding("guess", A, START) for _ in range(150)]
    assert kinds(stage.findings(found)) == [("guess", "opened")]
    alert = stage.find("guess", A)
    assert alert.finding_count == 150
    assert alert.finding_ids == [f.id for f in found[:EVIDENCE_LIMIT]]


def test_a_finding_stored_before_changes_nothing(stage: Stage):
    found = finding("guess", A, START)
    stage.findings([found])
    before = stage.find("guess", A)
    stage.now += HOUR
    assert stage.findings([found]) == []
    assert stage.findings([found, found]) == []
    assert stage.find("guess", A) == before
    assert stage.counted.tally["alerts_unused", "already-stored"] == 3


def test_a_finding_stored_before_opens_nothing_after_its_alert_was_resolved(stage: Stage):
    found = finding("guess", A, START)
    stage.findings([found])
    stage.do("resolve", "guess", A)
    assert stage.findings([found]) == []
    assert unresolved_keys(stage.store) == []


def test_an_informational_finding_is_stored_and_opens_no_alert(stage: Stage):
    found = finding("note", A, START)
    assert stage.findings([found]) == []
    assert stage.store.finding(found.id) == found
    assert stage.store.alerts() == []
    assert stage.counted.tally["alerts_unused", "informational"] == 1


def test_a_finding_on_an_acknowledged_alert_adds_to_it_and_after_resolution_opens_a_new_one(stage: Stage):
    stage.do("finding", "break-in", A)
    first = stage.find("break-in", A)
    stage.do("ack", "break-in", A)
    stage.do("finding", "break-in", A)
    assert stage.find("break-in", A).finding_count == 2
    assert stage.find("break-in", A).state is AlertState.ACKNOWLEDGED
    stage.do("resolve", "break-in", A)
    stage.now += 1000
    stage.do("finding", "break-in", A)
    second = stage.find("break-in", A)
    assert second.id != first.id
    assert (second.state, second.finding_count) == (AlertState.OPEN, 1)


def test_continuations_raise_the_count_and_those_of_no_alert_are_counted(stage: Stage):
    stage.do("finding", "guess", A)
    more = Continuation("guess", {"source.ip": A}, 40, START + 3, HOST)
    elsewhere = replace(more, host_id="22222222-2222-7222-8222-222222222222")
    here = replace(more, host_id="", count=2)
    assert kinds(stage.findings([], [more, elsewhere, here])) == [("guess", "updated")]
    alert = stage.find("guess", A)
    assert (alert.count, alert.finding_count) == (43, 1)
    assert stage.counted.tally["alerts_unused", "nothing-to-continue"] == 40


def test_a_condition_resolves_when_the_clearing_finding_with_its_key_comes(stage: Stage):
    stage.do("finding", "port-open", A, "198.51.100.2")
    clearing = finding("port-closed", A, START)
    assert kinds(stage.findings([clearing])) == [("port-open", "resolved")]
    alert = stage.find("port-open", A)
    assert (alert.state, alert.resolve_reason, alert.resolved_by) == (
        AlertState.RESOLVED,
        ResolveReason.CLEARED,
        "port-closed",
    )
    assert stage.find("port-open", "198.51.100.2").state is AlertState.OPEN
    assert stage.findings([finding("port-closed", A, START)]) == []
    assert stage.counted.tally["alerts_unused", "nothing-to-clear"] == 1


def test_a_condition_that_opens_clears_and_opens_in_one_call_is_two_alerts(stage: Stage):
    found = [finding(rule_id, A, START) for rule_id in ("port-open", "port-closed", "port-open")]
    assert kinds(stage.findings(found)) == [("port-open", "opened"), ("port-open", "resolved"), ("port-open", "opened")]
    assert [a.state for a in sorted(stage.store.alerts(), key=lambda a: a.state.value)] == [
        AlertState.OPEN,
        AlertState.RESOLVED,
    ]


def test_the_clearing_rule_may_know_more_than_the_key_of_the_condition(stage: Stage):
    stage.do("finding", "port-open", A)
    clearing = finding("port-closed", A, START)
    stage.findings([msgspec.structs.replace(clearing, key={**clearing.key, "source.port": 22})])
    assert stage.find("port-open", A).state is AlertState.RESOLVED


def test_a_clearing_finding_of_another_host_clears_nothing(stage: Stage):
    stage.do("finding", "port-open", A)
    stage.findings([finding("port-closed", A, START, host_id="22222222-2222-7222-8222-222222222222")])
    assert stage.find("port-open", A).state is AlertState.OPEN


def test_an_event_alert_is_not_cleared_even_if_a_rule_says_so(stage: Stage):
    stage.do("finding", "break-in", A)
    stage.findings([msgspec.structs.replace(finding("port-closed", A, START), clears="break-in")])
    assert stage.find("break-in", A).state is AlertState.OPEN


def test_an_event_alert_is_resolved_only_with_a_disposition(stage: Stage):
    stage.do("finding", "break-in", A)
    ident = stage.find("break-in", A).id
    with pytest.raises(AlertError, match="true-positive, false-positive, benign"):
        stage.change(lambda tx: lifecycle.resolve(tx, ident, "ada", Disposition.NONE, stage.now))
    stage.change(lambda tx: lifecycle.resolve(tx, ident, "ada", Disposition.BENIGN, stage.now, "my own test"))
    alert = stage.find("break-in", A)
    assert (alert.state, alert.disposition, alert.resolved_by, alert.note) == (
        AlertState.RESOLVED,
        Disposition.BENIGN,
        "ada",
        "my own test",
    )


def test_a_condition_is_resolved_by_hand_without_one(stage: Stage):
    stage.do("finding", "port-open", A)
    ident = stage.find("port-open", A).id
    changes = stage.change(lambda tx: lifecycle.resolve(tx, ident, "ada", Disposition.NONE, stage.now))
    assert kinds(changes) == [("port-open", "resolved")]


def test_a_disposition_may_follow_a_resolution_that_had_none(stage: Stage):
    stage.do("finding", "break-in", A)
    stage.do("resolve-all", "break-in")
    ident = stage.find("break-in", A).id
    assert stage.find("break-in", A).resolve_reason is ResolveReason.PAGER
    changes = stage.change(lambda tx: lifecycle.resolve(tx, ident, "ada", Disposition.FALSE_POSITIVE, stage.now))
    assert kinds(changes) == [("break-in", "updated")]
    alert = stage.find("break-in", A)
    assert (alert.disposition, alert.resolve_reason) == (Disposition.FALSE_POSITIVE, ResolveReason.PAGER)
    assert stage.change(lambda tx: lifecycle.resolve(tx, ident, "bob", Disposition.FALSE_POSITIVE, stage.now)) == []


def test_acknowledging_twice_changes_nothing_and_a_resolved_alert_cannot_be(stage: Stage):
    stage.do("finding", "break-in", A)
    ident = stage.find("break-in", A).id
    first = stage.change(lambda tx: lifecycle.acknowledge(tx, ident, "ada", stage.now))
    assert kinds(first) == [("break-in", "acknowledged")]
    assert stage.change(lambda tx: lifecycle.acknowledge(tx, ident, "bob", stage.now)) == []
    assert stage.find("break-in", A).acknowledged_by == "ada"
    stage.do("resolve", "break-in", A)
    with pytest.raises(AlertError, match="resolved already"):
        stage.change(lambda tx: lifecycle.acknowledge(tx, ident, "ada", stage.now))


@pytest.mark.parametrize(
    "act",
    [
        lambda tx: lifecycle.acknowledge(tx, "none", "ada", 1),
        lambda tx: lifecycle.resolve(tx, "none", "ada", Disposition.BENIGN, 1),
        lambda tx: lifecycle.add_note(tx, "none", "text", 1),
    ],
)
def test_a_verb_on_no_alert_is_an_error_with_a_hint(stage: Stage, act: object):
    with pytest.raises(AlertError, match=r"no alert 'none'.*hint"):
        stage.change(act)  # type: ignore[arg-type]


def test_notes_are_kept_one_below_the_other(stage: Stage):
    stage.do("finding", "break-in", A)
    ident = stage.find("break-in", A).id
    for text in ("first", "second"):
        stage.change(lambda tx, text=text: lifecycle.add_note(tx, ident, text, stage.now))
    assert stage.find("break-in", A).note == "first\nsecond"


def test_low_and_medium_event_alerts_end_by_themselves_high_and_critical_never(stage: Stage):
    for rule_id in ("probe", "guess", "break-in", "root", "port-open"):
        stage.do("finding", rule_id, A)
    stage.now += DAY
    assert stage.change(lambda tx: lifecycle.resolve_quiet(tx, stage.now, DAY)) == []
    stage.now += 1
    changes = stage.change(lambda tx: lifecycle.resolve_quiet(tx, stage.now, DAY))
    assert sorted(kinds(changes)) == [("guess", "resolved"), ("probe", "resolved")]
    assert {c.alert.resolve_reason for c in changes} == {ResolveReason.QUIET}
    stage.now += 400 * DAY
    assert stage.change(lambda tx: lifecycle.resolve_quiet(tx, stage.now, DAY)) == []


def test_an_old_record_read_now_does_not_end_at_once_and_a_future_one_does_not_stay_for_ever(stage: Stage):
    stage.findings([finding("probe", A, START - 30 * DAY), finding("guess", A, START + 300 * DAY)])
    assert stage.change(lambda tx: lifecycle.resolve_quiet(tx, stage.now, DAY)) == []
    stage.now += DAY + 1
    assert len(stage.change(lambda tx: lifecycle.resolve_quiet(tx, stage.now, DAY))) == 2


def test_a_rule_we_no_longer_have_still_makes_an_event_alert(stage: Stage):
    found = msgspec.structs.replace(finding("guess", A, START), rule_id="gone", level=Level.HIGH)
    changes = stage.findings([found])
    assert kinds(changes) == [("gone", "opened")]
    assert changes[0].kind is ChangeKind.OPENED


rule_ids = st.sampled_from(sorted(RULES))
addresses = st.sampled_from(["198.51.100.1", "198.51.100.2"])


@given(st.lists(st.lists(st.tuples(rule_ids, addresses, st.sampled_from("abcdefgh")), max_size=6), max_size=6))
def test_any_order_and_any_cut_keep_one_unresolved_alert_a_key(calls: list[list[tuple[str, str, str]]]):
    stage, seen = Stage(), set[str]()
    for call in calls:
        found = [finding(rule_id, address, START, ident=rule_id + address + name) for rule_id, address, name in call]
        stage.findings(found)
        seen |= {f.id for f in found if f.level > Level.INFORMATIONAL}
        stage.now += 1
    keys = unresolved_keys(stage.store)
    assert len(keys) == len(set(keys))
    # Every finding is in exactly one alert.
    held = [ident for alert in stage.store.alerts() for ident in alert.finding_ids]
    assert sorted(held) == sorted(seen)
