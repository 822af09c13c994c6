"""A rule that pages too often goes by mail until a person resolves the alert that says so, over restarts too.
Counterpart: vedette.app.budget."""

from __future__ import annotations

from structlog.testing import capture_logs
from tests.app.parts import Rig

from vedette.alerts import lifecycle
from vedette.app.own import PAGE_BUDGET_SPENT
from vedette.app.pipeline import COMMIT_AFTER
from vedette.model.alerts import AlertState, Disposition
from vedette.model.clock import DAY, HOUR, MINUTE
from vedette.model.notifications import NotificationKind


def resolve(rig: Rig, rule_id: str) -> None:
    """A person closes every open alert of a rule."""
    with rig.state.transaction() as tx:
        changes = []
        for alert in rig.alerts_of(rule_id):
            if alert.state is not AlertState.RESOLVED:
                changes += lifecycle.resolve(tx, alert.id, "alice", Disposition.TRUE_POSITIVE, rig.clock.now())
        rig.router.plan(changes, tx, rig.clock.now())
        rig.router.flush(tx, rig.clock.now())


def incident(rig: Rig) -> None:
    """`stopped` fires, somebody is told, and it is over."""
    rig.clock.advance(10 * MINUTE)
    rig.take(rig.line("stopped"))
    rig.wait(COMMIT_AFTER)
    rig.wait(MINUTE)
    resolve(rig, "stopped")
    rig.wait(10 * MINUTE)


def told(rig: Rig, receiver: str, rule_id: str = "stopped") -> int:
    """How many incidents of a rule this receiver heard of."""
    return len(
        {
            item.notification.dedup_key
            for item in rig.state.outbox(limit=1000)
            if item.notification.kind is NotificationKind.TRIGGER
            and item.notification.receiver == receiver
            and any(member.rule_id == rule_id for member in item.notification.members)
        }
    )


def test_without_a_budget_every_incident_pages():
    rig = Rig()
    for _ in range(4):
        incident(rig)
    assert (told(rig, "pager"), told(rig, "mail")) == (4, 0)


def test_when_the_budget_is_spent_the_next_incidents_are_mail_and_that_is_said_once():
    rig = Rig(page_budget=2)
    with capture_logs() as logs:
        for _ in range(5):
            incident(rig)
    assert (told(rig, "pager"), told(rig, "mail")) == (2, 3)
    assert [one["event"] for one in logs] == ["page budget spent"]
    (alert,) = rig.alerts_of(PAGE_BUDGET_SPENT.id)
    assert (alert.state, alert.count, alert.labels["vedette.rule"]) == (AlertState.OPEN, 1, "stopped")
    assert "stopped opened 2 incidents on the pager within a day" in alert.sample
    assert told(rig, "mail", PAGE_BUDGET_SPENT.id) == 1
    assert told(rig, "pager", PAGE_BUDGET_SPENT.id) == 0


def test_whoever_resolves_it_lets_the_rule_page_again_with_a_whole_budget():
    rig = Rig(page_budget=2)
    for _ in range(3):
        incident(rig)
    resolve(rig, PAGE_BUDGET_SPENT.id)
    for _ in range(3):
        incident(rig)
    assert (told(rig, "pager"), told(rig, "mail")) == (4, 2)
    assert [alert.state for alert in rig.alerts_of(PAGE_BUDGET_SPENT.id)] == [AlertState.OPEN, AlertState.RESOLVED]


def test_a_restart_forgets_neither_pages_nor_who_is_held_back():
    rig = Rig(page_budget=2)
    incident(rig)
    rig.start()
    incident(rig)
    rig.start()
    incident(rig)
    assert (told(rig, "pager"), told(rig, "mail")) == (2, 1)
    resolve(rig, PAGE_BUDGET_SPENT.id)
    rig.start()
    incident(rig)
    incident(rig)
    incident(rig)
    assert (told(rig, "pager"), told(rig, "mail")) == (4, 2)


def test_a_day_later_old_incidents_count_no_more():
    rig = Rig(page_budget=2)
    incident(rig)
    rig.clock.advance(DAY)
    incident(rig)
    incident(rig)
    assert (told(rig, "pager"), told(rig, "mail")) == (3, 0)
    incident(rig)
    assert (told(rig, "pager"), told(rig, "mail")) == (3, 1)


def test_what_repeats_or_grows_within_one_incident_is_one():
    rig = Rig(page_budget=2)
    rig.take(rig.line("stopped"))
    for _ in range(30):
        rig.wait(HOUR)
        rig.take(rig.line("stopped"))
    assert told(rig, "pager") == 1
    assert rig.alerts_of(PAGE_BUDGET_SPENT.id) == []


def test_what_vedette_says_of_itself_has_no_budget():
    rig = Rig(page_budget=1)
    for number in range(3):
        rig.pipeline._say(PAGE_BUDGET_SPENT, {"vedette.rule": f"r{number}"}, rig.clock.now(), "words")
        rig.wait(COMMIT_AFTER)
    assert {alert.labels["vedette.rule"] for alert in rig.alerts_of(PAGE_BUDGET_SPENT.id)} == {"r0", "r1", "r2"}
