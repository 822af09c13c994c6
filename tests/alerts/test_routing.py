"""When who is told what: scripts in time, each run in memory and on disk with a restart after every step.
Counterpart: vedette.alerts.routing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.alerts.parts import PAGE_AND_MAIL, START, Stage, finding, play, unresolved_keys

from vedette.alerts import lifecycle
from vedette.alerts.routes import ReceiverKind
from vedette.alerts.routing import MEMBERS_LIMIT, dedup_key, group_of_incident
from vedette.alerts.settings import AlertsSettings, InhibitSettings, RouteSettings
from vedette.model.alerts import AlertState
from vedette.model.clock import HOUR, MINUTE, SECOND
from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind, OutboxState
from vedette.store.state import State

SCRIPTS = {
    "what must not go further than the store is told nobody, however bad it is": """
        0s finding kept 198.51.100.1
        1h resolve kept 198.51.100.1
    """,
    "what may go no further than a mail is a mail in place of a page, apart from what may": """
        0s  finding mailed 198.51.100.1
        0s  expect mail trigger 1
        10s finding root 198.51.100.1
        10s expect pager trigger 1
        10s deliver
        20s resolve root 198.51.100.1
        20s expect pager resolve 1
        400s resolve mailed 198.51.100.1
        400s expect mail resolve 1
    """,
    "what may only be collected is a mail that can wait, and its end is no news": """
        0s finding collected 198.51.100.1
        0s expect mail trigger 1
        400s resolve collected 198.51.100.1
    """,
    "a high alert is a page at once": """
        0s finding break-in 198.51.100.1
        0s expect pager trigger 1
    """,
    "a critical alert too": """
        0s finding root 198.51.100.1
        0s expect pager trigger 1
    """,
    "medium alerts wait for their group and are one mail": """
        0s   finding guess 198.51.100.1
        10s  finding guess 198.51.100.2
        29s  finding guess 198.51.100.3
        30s  expect mail trigger 3
    """,
    "group_wait counts from the first member, not the last": """
        0s   finding guess 198.51.100.1
        20s  finding guess 198.51.100.2
        30s  expect mail trigger 2
        31s  finding guess 198.51.100.3
        330s expect mail trigger 3
    """,
    "informational findings are told nobody": """
        0s finding note 198.51.100.1
        24h quiet 24h
    """,
    "more findings on an open alert are no new notification": """
        0s  finding break-in 198.51.100.1
        0s  expect pager trigger 1
        10s finding break-in 198.51.100.1
        1h  finding break-in 198.51.100.1
    """,
    "new members are told after the group's interval": """
        0s   finding break-in 198.51.100.1
        0s   expect pager trigger 1
        10s  finding break-in 198.51.100.2
        20s  finding break-in 198.51.100.3
        300s expect pager trigger 3
        20m  finding break-in 198.51.100.4
        20m  expect pager trigger 4
    """,
    "what stays open is repeated": """
        0s   finding guess 198.51.100.1
        30s  expect mail trigger 1
        14430s expect mail trigger 1
        14500s resolve guess 198.51.100.1
        14730s expect mail resolve 1
        12h  deliver
    """,
    "two rules are two incidents": """
        0s finding break-in 198.51.100.1
        0s finding root 198.51.100.1
        0s expect pager trigger 1
        0s expect pager trigger 1
    """,
    "two thousand attackers are one incident": """
        0s many break-in 2000
        0s expect pager trigger 2000
        1s resolve-all break-in
        1s expect pager resolve 2000
        1s expect mail resolve 2000      # nothing was delivered yet
    """,
    "an incident is resolved when all its members are": """
        0s  finding break-in 198.51.100.1 198.51.100.2
        0s  expect pager trigger 2
        0s  deliver
        1m  resolve break-in 198.51.100.1
        2m  resolve break-in 198.51.100.2
        2m  expect pager resolve 2
    """,
    "acknowledged when all open members are, and no longer repeated": """
        0s   finding break-in 198.51.100.1 198.51.100.2
        0s   expect pager trigger 2
        1m   ack break-in 198.51.100.1
        2m   ack break-in 198.51.100.2
        2m   expect pager acknowledge 2
        12h  finding break-in 198.51.100.1
        13h  finding break-in 198.51.100.3
        13h  expect pager trigger 3
        14h  ack break-in 198.51.100.3
        14h  expect pager acknowledge 3
    """,
    "mail is not told of acknowledging": """
        0s   finding guess 198.51.100.1
        30s  expect mail trigger 1
        1m   ack guess 198.51.100.1
        12h  deliver
    """,
    "mail is told of resolved members while others are open": """
        0s   finding guess 198.51.100.1 198.51.100.2
        30s  expect mail trigger 2
        60s  resolve guess 198.51.100.1
        330s expect mail trigger 2
        400s resolve guess 198.51.100.2
        630s expect mail resolve 1
    """,
    "what was resolved before its group's wait is told nobody": """
        0s   finding guess 198.51.100.1
        10s  resolve guess 198.51.100.1
        1h   deliver
    """,
    "low and medium that became quiet are no news": """
        0s    finding guess 198.51.100.1
        30s   expect mail trigger 1
        60s   ack guess 198.51.100.1
        48h   quiet 24h
        50h   deliver
    """,
    "a condition that was over before its page left is a mail": """
        0s  finding port-open 198.51.100.1
        0s  expect pager trigger 1
        40s finding port-closed 198.51.100.1
        40s expect pager resolve 1
        40s expect mail resolve 1
    """,
    "one whose page has left is resolved at the pager only": """
        0s  finding port-open 198.51.100.1
        0s  expect pager trigger 1
        1s  deliver
        40s finding port-closed 198.51.100.1
        40s expect pager resolve 1
    """,
    "one that began and ended between two looks is a mail": """
        0s  at-once 198.51.100.1 port-open port-closed
        0s  expect mail resolve 1
    """,
    "a flapping condition pages once an interval": """
        0s   finding port-open 198.51.100.1
        0s   expect pager trigger 1
        0s   deliver
        10s  finding port-closed 198.51.100.1
        10s  expect pager resolve 1
        20s  finding port-open 198.51.100.1
        30s  finding port-closed 198.51.100.1
        30s  expect mail resolve 1
        40s  finding port-open 198.51.100.1
        300s expect pager trigger 1
    """,
    "a condition that ended and began again between two looks is a new incident": """
        0s   finding port-open 198.51.100.1
        0s   expect pager trigger 1
        0s   deliver
        10s  at-once 198.51.100.1 port-closed port-open
        10s  expect pager resolve 1
        300s expect pager trigger 1
        400s finding port-closed 198.51.100.1
        400s expect pager resolve 1
        400s expect mail resolve 1      # the second page was not delivered
    """,
    "the end of a long incident still names those who ended before": """
        0s   finding break-in 198.51.100.1 198.51.100.2
        0s   expect pager trigger 2
        0s   deliver
        1m   resolve break-in 198.51.100.1
        4h   expect pager trigger 1
        4h   deliver
        5h   resolve break-in 198.51.100.2
        5h   expect pager resolve 2
    """,
    "after the end a new attack is a new incident": """
        0s   finding break-in 198.51.100.1
        0s   expect pager trigger 1
        0s   deliver
        1h   resolve break-in 198.51.100.1
        1h   expect pager resolve 1
        2h   finding break-in 198.51.100.1
        2h   expect pager trigger 1
    """,
    "a silenced alert is not told, until the silence ends": """
        0s   silence 1h rule.id=break-in source.ip=198.51.100.*
        0s   finding break-in 198.51.100.1
        1h   expect pager trigger 1
    """,
    "a silence mutes only what it matches": """
        0s   silence 1h source.ip=198.51.100.1
        0s   finding break-in 198.51.100.1 198.51.100.2
        0s   expect pager trigger 1
        1h   expect pager trigger 2
    """,
    "a silence that was ended early": """
        0s   silence 90d rule.id=break-in
        0s   finding break-in 198.51.100.1
        7m   expire
        10m  expect pager trigger 1
    """,
    "silenced from begin to end: nobody hears of it, not even that it is over": """
        0s   silence 24h rule.id=port-open
        0s   finding port-open 198.51.100.1
        1h   finding port-closed 198.51.100.1
        2h   silence 24h rule.id=guess
        2h   finding guess 198.51.100.1
        3h   resolve guess 198.51.100.1
        4h   deliver
    """,
    "an incident that was paged ends at the pager even if silenced meanwhile": """
        0s   finding break-in 198.51.100.1
        0s   expect pager trigger 1
        0s   deliver
        1m   silence 24h rule.id=break-in
        2m   resolve break-in 198.51.100.1
        2m   expect pager resolve 1
    """,
    "a repeat falls silent while silenced": """
        0s   finding guess 198.51.100.1
        30s  expect mail trigger 1
        1h   silence 6h rule.id=guess
        8h   deliver
        25230s expect mail trigger 1
    """,
}


def tidy(told: list[str]) -> list[str]:
    """Of one moment in one order: groups due together are told in the order of their keys."""
    return sorted(told, key=lambda line: (float(line.split()[0].removesuffix("s")), line))


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_script(script: str):
    expected, told = play(Stage(), script)
    assert tidy(told) == tidy(expected)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("routing") / "state.db"
    State(path).close()
    return path


def on_disk(path: Path) -> Stage:
    for side in ("", "-wal", "-shm"):
        Path(f"{path}{side}").unlink(missing_ok=True)
    return Stage(store=State(path), reopen=lambda: State(path))


@pytest.mark.parametrize(
    "name",
    [
        "new members are told after the group's interval",
        "acknowledged when all open members are, and no longer repeated",
        "a flapping condition pages once an interval",
        "mail is told of resolved members while others are open",
        "a silence that was ended early",
    ],
)
def test_a_restart_after_every_step_tells_the_same(name: str, tmp_path: Path):
    stage = on_disk(tmp_path / "state.db")
    try:
        expected, told = play(stage, SCRIPTS[name])
    finally:
        stage.store.close()
    assert tidy(told) == tidy(expected)


# ---------------------------------------------------------------- receivers and the default tree
@pytest.mark.parametrize(
    ("receivers", "high", "medium", "low"),
    [
        (PAGE_AND_MAIL, "pager", "mail", "mail"),
        ({"mail": ReceiverKind.MAIL}, "mail", "mail", "mail"),
        ({"pager": ReceiverKind.PAGE}, "pager", None, None),
        ({"chat": ReceiverKind.OTHER}, "chat", "chat", "chat"),
        ({"chat": ReceiverKind.OTHER, "mail": ReceiverKind.MAIL, "also": ReceiverKind.MAIL}, "mail", "mail", "mail"),
        ({}, None, None, None),
    ],
)
def test_the_default_tree_is_the_seed_practice(
    receivers: dict[str, ReceiverKind], high: str | None, medium: str | None, low: str | None
):
    for rule_id, receiver in (("break-in", high), ("guess", medium), ("probe", low), ("note", None)):
        stage = Stage(receivers=receivers)
        stage.do("finding", rule_id, "198.51.100.1")
        stage.go_to(START + HOUR)
        assert [n.receiver for _, n in stage.told] == ([receiver] if receiver else [])
        assert [n.digest for _, n in stage.told] == ([rule_id == "probe"] if receiver else [])


def test_high_by_mail_does_not_wait():
    stage = Stage(receivers={"mail": ReceiverKind.MAIL})
    expected, told = play(stage, "0s finding break-in 198.51.100.1\n0s expect mail trigger 1")
    assert told == expected


def test_a_route_to_no_receiver_is_stored_only():
    stage = Stage(AlertsSettings(route=RouteSettings(receiver="")))
    stage.do("finding", "root", "198.51.100.1")
    stage.go_to(START + HOUR)
    assert stage.told == []
    assert stage.find("root", "198.51.100.1").state is AlertState.OPEN


# ---------------------------------------------------------------- what a notification says
def test_a_notification_of_many_lists_fifty_and_says_how_many():
    stage = Stage()
    stage.do("many", "break-in", "2000")
    stage.go_to(stage.now)
    ((_, notification),) = stage.told
    assert len(notification.members) == MEMBERS_LIMIT == 50
    assert notification.total == 2000
    assert notification.level is Level.HIGH
    assert notification.group_labels == {"rule.id": "break-in"}
    member = notification.members[0]
    assert (member.rule_id, member.state, member.advice) == ("break-in", "open", "look")
    assert member.labels["source.ip"] in member.summary


def test_those_nobody_was_told_of_are_listed_first():
    stage = Stage()
    stage.do("many", "break-in", "60")
    stage.go_to(stage.now)
    stage.do("finding", "break-in", "203.0.113.9")
    stage.go_to(START + HOUR)
    _, second = stage.told[1]
    assert second.members[0].labels["source.ip"] == "203.0.113.9"


def test_one_episode_has_one_dedup_key_and_the_next_another():
    stage = Stage()
    script = SCRIPTS["after the end a new attack is a new incident"]
    play(stage, script)
    keys = [(n.kind.value, n.episode, n.dedup_key) for _, n in stage.told]
    first, second = keys[0][2], keys[2][2]
    assert keys == [("trigger", 1, first), ("resolve", 1, first), ("trigger", 2, second)]
    assert first != second
    assert len(first) == 32
    assert first == dedup_key('{}/{level=~"high|critical"}', {"rule.id": "break-in"}, 1)


def test_a_pager_that_speaks_of_an_incident_finds_its_group():
    stage = Stage()
    stage.do("finding", "break-in", "198.51.100.1")
    stage.go_to(stage.now)
    ((_, notification),) = stage.told
    group = group_of_incident(stage.store.groups(), notification.dedup_key)
    assert group is not None
    assert group.members == [stage.find("break-in", "198.51.100.1").id]
    assert group_of_incident(stage.store.groups(), "0" * 32) is None


def test_items_of_one_group_are_in_order_and_one_behind_the_other():
    stage = Stage()
    play(stage, "0s finding break-in 198.51.100.1\n1m ack break-in 198.51.100.1")
    items = sorted(stage.store.outbox(), key=lambda item: item.sequence)
    assert [item.notification.kind for item in items] == [NotificationKind.TRIGGER, NotificationKind.ACKNOWLEDGE]
    assert len({item.order_key for item in items}) == 1
    assert [item.id for item in stage.store.pending_outbox(stage.now)] == [items[0].id]


def test_a_clock_that_was_set_back_does_not_reorder_or_hold_back():
    stage = Stage()
    stage.do("finding", "break-in", "198.51.100.1")
    stage.go_to(stage.now)
    stage.now -= 24 * HOUR
    stage.do("resolve", "break-in", "198.51.100.1")
    stage.flush()
    kinds = [item.notification.kind for item in sorted(stage.store.outbox(), key=lambda item: item.sequence)]
    assert kinds[:2] == [NotificationKind.TRIGGER, NotificationKind.RESOLVE]
    stage.do("finding", "break-in", "198.51.100.2")
    stage.go_to(stage.now + 5 * MINUTE)
    assert stage.told[-1][1].kind is NotificationKind.TRIGGER


def test_a_page_that_was_superseded_is_never_sent_but_a_mail_is():
    stage = Stage()
    play(stage, SCRIPTS["a condition that was over before its page left is a mail"])
    states = {(i.notification.receiver, i.notification.kind.value): i.state for i in stage.store.outbox()}
    assert states == {
        ("pager", "trigger"): OutboxState.SUPERSEDED,
        ("pager", "resolve"): OutboxState.PENDING,
        ("mail", "resolve"): OutboxState.PENDING,
    }
    assert stage.counted.tally["pages_superseded", ""] == 1


def test_a_page_that_was_superseded_where_there_is_no_mail_is_counted():
    stage = Stage(receivers={"pager": ReceiverKind.PAGE})
    play(stage, SCRIPTS["a condition that was over before its page left is a mail"])
    assert stage.counted.tally["pages_without_mail", ""] == 1


# ---------------------------------------------------------------- trees of one's own
def test_continue_tells_several_receivers_and_a_match_ends_the_search_otherwise():
    tree = RouteSettings(
        receiver="mail",
        group_wait="0s",
        routes=(
            RouteSettings(receiver="chat", matchers=("level=high",), go_on=True),
            RouteSettings(receiver="pager", matchers=("level=high",)),
            RouteSettings(receiver="never", matchers=("level=high",)),
        ),
    )
    receivers = {**PAGE_AND_MAIL, "chat": ReceiverKind.OTHER, "never": ReceiverKind.OTHER}
    stage = Stage(AlertsSettings(route=tree), receivers)
    play(stage, "0s finding break-in 198.51.100.1\n0s finding guess 198.51.100.1")
    assert {(n.receiver, n.level.label) for _, n in stage.told} == {
        ("chat", "high"),
        ("pager", "high"),
        ("mail", "medium"),
    }


@pytest.mark.parametrize(("group_by", "groups"), [(("source.ip",), 2), (("...",), 2), (("rule.id",), 1), ((), 1)])
def test_group_by_says_what_is_one_notification(group_by: tuple[str, ...], groups: int):
    stage = Stage(AlertsSettings(route=RouteSettings(receiver="mail", group_wait="0s", group_by=group_by)))
    play(stage, "0s finding guess 198.51.100.1 198.51.100.2")
    assert len(stage.told) == groups


INHIBIT = AlertsSettings(
    inhibit=(InhibitSettings(source=("rule.id=root",), target=("rule.id=break-in",), equal=("source.ip",)),)
)


def test_an_inhibited_alert_is_not_told_until_its_source_is_over():
    stage = Stage(INHIBIT)
    expected, told = play(
        stage,
        """
        0s  finding root 198.51.100.1
        0s  expect pager trigger 1
        0s  deliver
        1s  finding break-in 198.51.100.1
        2s  finding break-in 198.51.100.2
        2s  expect pager trigger 1
        10m resolve root 198.51.100.1
        10m expect pager resolve 1
        602s expect pager trigger 2
        """,
    )
    assert tidy(told) == tidy(expected)
    assert stage.counted.tally["alerts_muted", "inhibited"] > 0


def test_an_alert_on_both_sides_of_an_inhibition_does_not_mute_itself():
    both = InhibitSettings(source=("level=high",), target=("level=~high|medium",))
    stage = Stage(AlertsSettings(inhibit=(both,)))
    expected, told = play(
        stage,
        """
        0s finding break-in 198.51.100.1 198.51.100.2
        0s finding guess 198.51.100.1
        0s expect pager trigger 2
        1h deliver
        """,
    )
    assert told == expected


def test_alerts_of_a_route_that_the_settings_no_longer_have_go_where_they_now_belong():
    stage = Stage()
    play(stage, "0s finding break-in 198.51.100.1\n0s deliver")
    stage.settings = AlertsSettings(route=RouteSettings(receiver="mail", group_wait="0s"))
    stage.restart()
    stage.go_to(START + 5 * HOUR)
    assert [(n.receiver, n.kind.value) for _, n in stage.told] == [
        ("pager", "trigger"),
        ("pager", "resolve"),
        ("mail", "trigger"),
    ]
    assert stage.told[0][1].dedup_key == stage.told[1][1].dedup_key


def test_a_group_that_never_empties_does_not_remember_everyone():
    stage = Stage()
    play(stage, "0s many break-in 300")
    everyone = [alert.id for alert in stage.store.alerts(limit=1000)]
    stage.change(lambda tx: lifecycle.resolve_all(tx, everyone[1:], "pager", stage.now))
    stage.go_to(START + 5 * HOUR)
    (group,) = stage.store.groups()
    assert group.members == everyone[:1]
    assert len(group.notified) <= MEMBERS_LIMIT + 1


def test_what_was_resolved_without_a_plan_is_noticed_at_the_next_look():
    stage = Stage()
    play(stage, "0s silence 10m rule.id=break-in\n0s finding break-in 198.51.100.1")
    with stage.store.transaction() as tx:
        lifecycle.resolve_all(tx, [stage.find("break-in", "198.51.100.1").id], "pager", stage.now)
    stage.do("expire")
    stage.go_to(START + HOUR)
    assert [(n.receiver, n.kind.value) for _, n in stage.told] == [("mail", "resolve")]


# ---------------------------------------------------------------- any order of things
class Pager:
    """What PagerDuty would show: incidents by dedup_key."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}

    def take(self, stage: Stage) -> None:
        for item in stage.store.pending_outbox(stage.now, 1000):
            while item is not None:
                notification = item.notification
                if notification.receiver == "pager":
                    match notification.kind:
                        case NotificationKind.TRIGGER:
                            self.open.setdefault(notification.dedup_key, "triggered")
                        case NotificationKind.ACKNOWLEDGE if notification.dedup_key in self.open:
                            self.open[notification.dedup_key] = "acknowledged"
                        case NotificationKind.RESOLVE:
                            self.open.pop(notification.dedup_key, None)
                item.state = OutboxState.DELIVERED
                stage.store.save_outbox(item)
                following = [i for i in stage.store.pending_outbox(stage.now, 1000) if i.order_key == item.order_key]
                item = following[0] if following else None


ADDRESSES = ("198.51.100.1", "198.51.100.2")
moves = st.one_of(
    st.tuples(
        st.just("finding"),
        st.sampled_from(["break-in", "port-open", "guess", "port-closed"]),
        st.sampled_from(ADDRESSES),
    ),
    st.tuples(st.sampled_from(["ack", "resolve"]), st.sampled_from(["break-in", "guess"]), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("silence"), st.sampled_from(["30s", "10m", "6h"]), st.sampled_from(["source.ip=198.51.100.1"])),
    st.tuples(st.sampled_from(["flush", "restart", "page"])),
    st.tuples(st.just("wait"), st.sampled_from(["1s", "20s", "3m", "5m", "5h"])),
)


def perform(stage: Stage, pager: Pager, move: tuple[str, ...]) -> None:
    verb, *words = move
    match verb:
        case "flush":
            stage.flush()
            assert stage.flush() == [], "a second look at the same moment tells nothing"
        case "page":
            pager.take(stage)
        case "wait":
            stage.go_to(stage.now + {"1s": 1, "20s": 20, "3m": 180, "5m": 300, "5h": 18000}[words[0]] * SECOND)
        case "ack" | "resolve":
            named = [a for a in stage.store.alerts() if a.rule_id == words[0] and a.labels["source.ip"] == words[1]]
            if any(alert.state is not AlertState.RESOLVED for alert in named):
                stage.do(verb, *words)
        case _:
            stage.do(verb, *words)


@settings(max_examples=150)
@given(st.lists(moves, max_size=25))
def test_whatever_happens_nothing_is_told_twice_forgotten_or_left_open(script: list[tuple[str, ...]]):
    stage, pager = Stage(), Pager()
    for move in script:
        perform(stage, pager, move)
        keys = unresolved_keys(stage.store)
        assert len(keys) == len(set(keys)), "at most one unresolved alert a key"
    # Once every wait and silence is over, each open alert nobody looks after was told.
    stage.go_to(stage.now + 7 * HOUR)
    told = {alert_id for group in stage.store.groups() for alert_id in group.notified}
    for alert in stage.store.alerts():
        if alert.state is AlertState.OPEN:
            assert alert.id in told
    # A receiver is left alone for the interval after each trigger of a group.
    triggers: dict[str, list[int]] = {}
    for at, notification in stage.told:
        if notification.kind is NotificationKind.TRIGGER:
            triggers.setdefault(notification.group_key, []).append(at)
    for times in triggers.values():
        assert all(later - earlier >= 5 * MINUTE for earlier, later in pairwise(times))
    # The pager shows exactly the groups with unresolved members, and none once all is resolved.
    pager.take(stage)
    paged = [g for g in stage.store.groups() if g.receiver == "pager" and g.triggered]
    assert set(pager.open) == {dedup_key(g.route, g.labels, g.episode) for g in paged}
    for group in paged:
        states = [stage.store.alert(alert_id) for alert_id in group.members]
        assert any(alert is not None and alert.state is not AlertState.RESOLVED for alert in states)
    for rule_id in ("break-in", "port-open", "guess"):
        stage.do("resolve-all", rule_id)
    stage.flush()
    pager.take(stage)
    assert pager.open == {}
    assert [group.members for group in stage.store.groups() if group.members] == []


@settings(max_examples=40)
@given(st.lists(moves, max_size=15))
def test_a_restart_between_any_two_steps_changes_nothing(script: list[tuple[str, ...]]):
    told = []
    for restarts in (False, True):
        stage, pager = Stage(), Pager()
        for move in script:
            perform(stage, pager, move)
            if restarts:
                stage.restart()
        stage.go_to(stage.now + 7 * HOUR)
        told.append([(at, n.receiver, n.kind, n.episode, n.dedup_key, n.total) for at, n in stage.told])
    assert told[0] == told[1]


def test_what_is_kept_back_is_counted_and_says_so_itself():
    stage = Stage()
    stage.findings([finding("kept", "198.51.100.1", START), finding("mailed", "198.51.100.2", START)])
    assert stage.counted.tally["alerts_kept_back", "store"] == 1
    assert stage.find("kept", "198.51.100.1").labels["rule.step"] == "store"
    assert stage.find("mailed", "198.51.100.2").labels["rule.step"] == "mail"


def test_what_may_be_mailed_is_kept_where_there_is_only_a_pager():
    stage = Stage(receivers={"pager": ReceiverKind.PAGE})
    stage.findings([finding("mailed", "198.51.100.2", START)])
    stage.go_to(START + HOUR)
    assert stage.told == []
    assert stage.counted.tally["alerts_kept_back", "mail"] == 1


def test_a_finding_given_twice_is_told_once():
    stage = Stage()
    for _ in range(2):
        stage.findings([finding("break-in", "198.51.100.1", START, ident="same")])
        stage.go_to(stage.now)
    assert len(stage.told) == 1
