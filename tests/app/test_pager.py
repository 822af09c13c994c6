from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.app.parts import BRUTE, FAILED, Rig

from vedette.alerts.routes import ReceiverKind
from vedette.alerts.routing import Router
from vedette.alerts.settings import AlertsSettings
from vedette.app.counters import Counters
from vedette.app.pager import on_pager_event
from vedette.model.alerts import AlertState, Disposition, ResolveReason
from vedette.model.clock import SECOND
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind
from vedette.notify.pagerduty_webhook import PagerVerb

ADDRESSES = [f"198.51.100.{number}" for number in range(20)]


@pytest.fixture
def rig() -> Rig:
    made = Rig(rules=[FAILED, replace(BRUTE, level=Level.HIGH)])
    for address in ADDRESSES:
        made.attack(address)
    made.wait(SECOND)
    return made


def say(rig: Rig, verb: PagerVerb, key: str | None = None) -> int:
    """What the pager says of the one incident; how often the rest of the program was woken."""
    incident = key or rig.state.outbox()[-1].notification.dedup_key
    woken: list[bool] = []
    router = Router(AlertsSettings(), {"mail": ReceiverKind.MAIL, "pager": ReceiverKind.PAGE}, Counters())
    told = on_pager_event(rig.state, router, rig.clock, [lambda: woken.append(True)])
    asyncio.run(told(incident, verb, "alice", rig.clock.now()))
    return len(woken)


def test_an_acknowledged_incident_is_acknowledged_alerts_in_one_transaction(rig: Rig):
    before = rig.state.transactions
    assert say(rig, PagerVerb.ACKNOWLEDGED) == 1
    assert rig.state.transactions == before + 1
    assert {(one.state, one.acknowledged_by) for one in rig.state.alerts()} == {(AlertState.ACKNOWLEDGED, "alice")}
    assert say(rig, PagerVerb.ACKNOWLEDGED) == 0


def test_a_resolved_incident_is_resolved_alerts_whose_disposition_may_follow(rig: Rig):
    assert say(rig, PagerVerb.RESOLVED) == 1
    assert {(one.state, one.resolve_reason, one.disposition) for one in rig.state.alerts()} == {
        (AlertState.RESOLVED, ResolveReason.PAGER, Disposition.NONE)
    }
    assert rig.state.outbox()[0].notification.kind is NotificationKind.RESOLVE
    assert say(rig, PagerVerb.RESOLVED) == 0


@pytest.mark.parametrize(
    "verb", [verb for verb in PagerVerb if verb not in (PagerVerb.ACKNOWLEDGED, PagerVerb.RESOLVED)]
)
def test_what_undoes_changes_nothing(rig: Rig, verb: PagerVerb):
    assert say(rig, verb) == 0
    assert {one.state for one in rig.state.alerts()} == {AlertState.OPEN}


def test_an_incident_of_somebody_else_changes_nothing(rig: Rig):
    assert say(rig, PagerVerb.RESOLVED, "not-ours") == 0
    assert {one.state for one in rig.state.alerts()} == {AlertState.OPEN}


def test_what_the_disk_refuses_is_said_so_that_the_pager_comes_again(rig: Rig):
    rig.state.refusing = True
    with pytest.raises(StateError):
        say(rig, PagerVerb.RESOLVED)
    assert {one.state for one in rig.state.alerts()} == {AlertState.OPEN}
    rig.state.refusing = False
    assert say(rig, PagerVerb.RESOLVED) == 1
