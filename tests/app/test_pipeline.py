from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.app.parts import ATTACKER, BRUTE, RULES, SKEW_LIMIT, FakeEnforcer, RefusableState, Rig

from vedette.app import pipeline as module
from vedette.app.enforcing import SYNC_EVERY
from vedette.app.pipeline import COMMIT_AFTER, FOREIGN_EVERY, RETRY_AFTER
from vedette.model.alerts import AlertState, ResolveReason
from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.model.decisions import DecisionState, LiftReason, Rung
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind, OutboxState
from vedette.model.reasons import RefusalReason
from vedette.model.retention import Kept
from vedette.model.rules import Op, Rule, Test
from vedette.respond.allowlist import Entry
from vedette.respond.policy import Policy
from vedette.respond.settings import RespondSettings
from vedette.store.settings import RetentionSettings
from vedette.store.state import Mended, State

OTHER = "203.0.113.80"


@pytest.fixture
def enforcer() -> FakeEnforcer:
    return FakeEnforcer()


@pytest.fixture
def rig(enforcer: FakeEnforcer) -> Rig:
    made = Rig(enforcers=[enforcer])
    made.pipeline.tick()
    enforcer.calls.clear()
    return made


# ------------------------------------------------------------------------------------------------ the commit point


def test_everything_of_a_block_is_committed_before_it_is_enforced():
    seen = []

    def look(decisions):
        seen.append(
            {
                "decisions": {one.id for one in decisions} <= {one.id for one in rig.state.active_decisions(0)},
                "finding": rig.state.finding(decisions[0].finding_id) is not None,
                "alert": rig.state.alert(decisions[0].alert_id) is not None,
                "outbox": len(rig.state.outbox()),
                "group": len(rig.state.groups()),
                "cursor": rig.state.cursors(),
                "correlation": {rule for rule, _, _ in rig.state.correlation()},
            }
        )

    rig = Rig(enforcers=[FakeEnforcer(look)])
    rig.attack()
    assert seen == [
        {
            "decisions": True,
            "finding": True,
            "alert": True,
            "outbox": 0,
            "group": 1,
            "cursor": {"journal": "3"},
            "correlation": {"", "brute"},
        }
    ]


def test_a_finding_commits_at_once_and_what_made_none_waits_a_second(rig: Rig):
    rig.take(rig.line("failed"))
    assert rig.state.cursors() == {}
    wait = rig.wait(COMMIT_AFTER - 1)
    assert rig.state.cursors() == {}
    assert 0 < wait <= FOREIGN_EVERY / SECOND
    rig.wait(1)
    assert rig.state.cursors() == {"journal": "1"}
    rig.take(*(rig.line("failed") for _ in range(2)))
    assert rig.state.cursors() == {"journal": "3"}


def test_a_batch_that_comes_a_second_after_the_first_commits_without_a_tick(rig: Rig):
    rig.take(rig.line("failed"))
    rig.clock.advance(COMMIT_AFTER)
    rig.take(rig.line("accepted"))
    assert rig.state.cursors() == {"journal": "2"}


def test_many_bytes_commit_before_the_second_is_over(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    line = rig.line("accepted")
    monkeypatch.setattr(module, "COMMIT_BYTES", 3 * (len(line) + 1))
    rig.take(line, line)
    assert rig.state.cursors() == {}
    rig.take(line)
    assert rig.state.cursors() == {"journal": "3"}
    rig.take(line, line)
    assert rig.state.cursors() == {"journal": "3"}


def test_a_batch_without_a_cursor_leaves_the_cursor_alone(rig: Rig):
    rig.pipeline.take(replace(rig.batch([rig.line("failed")] * 3), cursor=""))
    assert len(rig.state.recent_findings()) == 1
    assert rig.state.cursors() == {}


def test_a_batch_without_records_stores_where_its_source_stands(rig: Rig):
    rig.pipeline.take(replace(rig.batch([]), cursor="here"))
    rig.wait(COMMIT_AFTER)
    assert rig.state.cursors() == {"journal": "here"}


def test_further_matches_raise_the_count_and_make_no_finding(rig: Rig):
    rig.attack()
    rig.attack(count=4)
    assert [alert.count for alert in rig.alerts_of("brute")] == [3]
    rig.wait(COMMIT_AFTER)
    assert [alert.count for alert in rig.alerts_of("brute")] == [7]
    assert len(rig.state.recent_findings()) == 1


def test_the_outbox_is_woken_only_when_there_is_something_for_it(rig: Rig):
    rig.attack()
    rig.wait(COMMIT_AFTER)
    assert (rig.woken, rig.state.outbox()) == (0, [])
    rig.take(rig.line("stopped"))
    assert rig.woken == 1
    (item,) = rig.state.outbox()
    assert (item.notification.receiver, item.notification.level) == ("pager", Level.HIGH)


def test_what_is_due_later_is_told_when_its_time_has_come_without_another_record(rig: Rig):
    rig.attack()
    due = rig.state.next_due()
    assert due > rig.clock.now()
    rig.clock.set(due - 1)
    rig.pipeline.tick()
    assert rig.state.outbox() == []
    rig.wait(1)
    assert [item.notification.receiver for item in rig.state.outbox()] == ["mail"]
    assert rig.woken == 1


def test_what_was_due_while_nothing_ran_is_told_at_the_first_tick(rig: Rig):
    rig.attack()
    rig.clock.set(rig.state.next_due() + HOUR)
    rig.start()
    rig.pipeline.tick()
    assert len(rig.state.outbox()) == 1


def test_close_commits_the_rest_and_leaves_what_is_enforced(rig: Rig, enforcer: FakeEnforcer):
    rig.attack()
    rig.take(rig.line("failed"))
    enforcer.calls.clear()
    rig.pipeline.close()
    assert rig.state.cursors() == {"journal": "4"}
    assert [alert.count for alert in rig.alerts_of("brute")] == [4]
    assert enforcer.calls == []
    assert enforcer.blocked == {ATTACKER}


# ------------------------------------------------------------------------------------------------ a disk that refuses


def test_what_the_disk_refuses_is_enforced_by_nobody_said_once_and_stored_later(rig: Rig, enforcer: FakeEnforcer):
    rig.state.refusing = True
    with capture_logs() as logs:
        rig.attack()
        for _ in range(30):
            rig.wait(RETRY_AFTER // 4)
    assert [one["event"].split(":")[0] for one in logs] == ["STATE CANNOT BE WRITTEN"]
    assert "add" not in enforcer.calls
    assert enforcer.blocked == set()
    assert (rig.state.recent_findings(), rig.state.alerts(), rig.state.decisions()) == ([], [], [])
    assert rig.state.cursors() == {}
    assert rig.counters.value("commits_refused") > 1

    rig.state.refusing = False
    with capture_logs() as logs:
        rig.wait(RETRY_AFTER)
    assert [one["event"] for one in logs] == ["state is written again"]
    (finding,) = rig.state.recent_findings()
    (decision,) = rig.state.decisions()
    assert decision.finding_id == finding.id
    assert enforcer.blocked == {ATTACKER}
    assert rig.state.cursors() == {"journal": "3"}


def test_a_disk_that_refuses_is_not_asked_again_within_a_second(rig: Rig):
    rig.state.refusing = True
    rig.attack()
    asked = rig.state.transactions
    rig.attack(OTHER)
    assert rig.pipeline.tick() <= RETRY_AFTER / SECOND
    assert rig.state.transactions == asked
    rig.wait(RETRY_AFTER)
    assert rig.state.transactions > asked


def test_what_came_while_the_disk_refused_is_stored_in_one_piece(rig: Rig, enforcer: FakeEnforcer):
    rig.state.refusing = True
    rig.attack()
    rig.attack(count=2)
    rig.attack(OTHER)
    rig.take(rig.line("stopped"))
    rig.state.refusing = False
    rig.wait(RETRY_AFTER)
    assert {alert.labels.get("source.ip"): alert.count for alert in rig.alerts_of("brute")} == {ATTACKER: 5, OTHER: 3}
    assert len(rig.alerts_of("stopped")) == 1
    assert enforcer.blocked == {ATTACKER, OTHER}
    assert rig.state.cursors() == {"journal": "9"}


def test_windows_of_a_refused_commit_are_there_after_the_next_one_and_a_restart(rig: Rig):
    rig.take(rig.line("failed"), rig.line("failed", more="source.port=2"))
    rig.state.refusing = True
    rig.wait(COMMIT_AFTER)
    rig.state.refusing = False
    rig.wait(RETRY_AFTER)
    rig.start()
    rig.take(rig.line("failed"))
    assert [one.count for one in rig.state.recent_findings()] == [3]


def test_findings_that_wait_are_bounded_and_what_is_dropped_is_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "WAITING_LIMIT", 3)
    rig.state.refusing = True
    for number in range(5):
        rig.attack(f"198.51.100.{number}")
        rig.wait(RETRY_AFTER)
    assert rig.counters.value("findings_waiting_dropped") == 2
    rig.state.refusing = False
    rig.wait(RETRY_AFTER)
    assert rig.decided() == {f"198.51.100.{number}" for number in (2, 3, 4)}


def test_matches_that_only_count_on_take_no_more_room_the_longer_the_disk_refuses(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "WAITING_LIMIT", 3)
    rig.attack()
    rig.state.refusing = True
    for _ in range(20):
        rig.attack(count=2)
        rig.wait(RETRY_AFTER)
    assert len(rig.pipeline._continuations) <= 3 + 1
    rig.state.refusing = False
    rig.wait(RETRY_AFTER)
    assert [alert.count for alert in rig.alerts_of("brute")] == [43]


def test_closing_tries_once_more_at_once(rig: Rig):
    rig.state.refusing = True
    rig.attack()
    rig.state.refusing = False
    rig.pipeline.close()
    assert len(rig.state.recent_findings()) == 1


def test_closing_on_a_disk_that_still_refuses_loses_nothing(rig: Rig, enforcer: FakeEnforcer):
    lines = [rig.line("failed", more=f"source.port={port}") for port in range(3)]
    rig.state.refusing = True
    rig.take(*lines)
    rig.pipeline.close()
    assert rig.state.cursors() == {}
    rig.state.refusing = False
    rig.start()
    rig.take(*lines)
    assert len(rig.state.recent_findings()) == 1
    assert enforcer.blocked == {ATTACKER}


# ------------------------------------------------------------------------------------------------ enforcers


def test_an_enforcer_that_fails_is_an_alert_until_it_works(rig: Rig, enforcer: FakeEnforcer):
    enforcer.broken = "no permission"
    with capture_logs() as logs:
        rig.attack()
        rig.wait(COMMIT_AFTER)
        for _ in range(5):
            rig.wait(RETRY_AFTER)
    assert [one["event"] for one in logs] == ["BLOCKS ARE NOT IN FORCE"]
    (alert,) = rig.alerts_of("vedette-enforcer-failed")
    assert (alert.state, alert.level, alert.count) == (AlertState.OPEN, Level.HIGH, 1)
    assert alert.labels["vedette.enforcer"] == "fake"
    assert "no permission" in alert.sample
    assert [item.notification.receiver for item in rig.state.outbox()] == ["pager"]

    enforcer.broken = ""
    with capture_logs() as logs:
        rig.wait(SYNC_EVERY)
        rig.wait(COMMIT_AFTER)
    assert [one["event"] for one in logs] == ["enforcer works again"]
    assert enforcer.blocked == {ATTACKER}
    (alert,) = rig.alerts_of("vedette-enforcer-failed")
    assert (alert.state, alert.resolve_reason) == (AlertState.RESOLVED, ResolveReason.CLEARED)
    assert rig.state.outbox()[0].notification.kind is NotificationKind.RESOLVE


def test_a_block_that_failed_is_tried_again_within_a_second_or_so(rig: Rig, enforcer: FakeEnforcer):
    enforcer.broken = "busy"
    rig.attack()
    enforcer.broken = ""
    rig.wait(RETRY_AFTER)
    assert enforcer.blocked == {ATTACKER}


def test_an_enforcer_that_fails_does_not_keep_others_from_blocking():
    broken, works = FakeEnforcer(name="broken"), FakeEnforcer(name="works")
    rig = Rig(enforcers=[broken, works])
    rig.pipeline.tick()
    broken.broken = "gone"
    rig.attack()
    assert works.blocked == {ATTACKER}
    rig.wait(SYNC_EVERY)
    rig.wait(COMMIT_AFTER)
    assert [one.labels["vedette.enforcer"] for one in rig.alerts_of("vedette-enforcer-failed")] == ["broken"]


def test_an_enforcer_broken_from_the_start_is_an_alert_too():
    enforcer = FakeEnforcer()
    enforcer.broken = "no nftables"
    rig = Rig(enforcers=[enforcer])
    rig.pipeline.tick()
    rig.wait(COMMIT_AFTER)
    assert len(rig.alerts_of("vedette-enforcer-failed")) == 1


def test_an_enforcer_that_works_again_after_a_restart_ends_its_alert_too(rig: Rig, enforcer: FakeEnforcer):
    enforcer.broken = "no permission"
    rig.attack()
    rig.wait(COMMIT_AFTER)
    rig.start()
    rig.wait(SYNC_EVERY)
    rig.wait(COMMIT_AFTER)
    assert [alert.state for alert in rig.alerts_of("vedette-enforcer-failed")] == [AlertState.OPEN]
    rig.start()
    enforcer.broken = ""
    rig.wait(SYNC_EVERY)
    rig.wait(COMMIT_AFTER)
    assert [alert.state for alert in rig.alerts_of("vedette-enforcer-failed")] == [AlertState.RESOLVED]


def test_what_the_kernel_lost_is_mended_and_counted(rig: Rig, enforcer: FakeEnforcer):
    rig.attack()
    enforcer.held.clear()
    rig.wait(SYNC_EVERY)
    assert enforcer.blocked == {ATTACKER}
    assert rig.counters.value("enforcer_mended", "fake") == 1


def test_a_restart_puts_back_in_force_what_was_committed(rig: Rig, enforcer: FakeEnforcer):
    rig.attack()
    enforcer.held.clear()
    rig.start()
    rig.pipeline.tick()
    assert enforcer.blocked == {ATTACKER}


def test_a_block_ends_with_its_lease(rig: Rig, enforcer: FakeEnforcer):
    rig.attack()
    rig.wait(HOUR)
    rig.wait(MINUTE)
    assert enforcer.blocked == set()
    assert [one.state for one in rig.state.decisions()] == [DecisionState.EXPIRED]


# ------------------------------------------------------------------------------------------------ the fuse


def test_a_blown_fuse_is_a_high_alert_and_blocks_no_more(enforcer: FakeEnforcer):
    rig = Rig(enforcers=[enforcer], fuse={"per_minute": 2})
    with capture_logs() as logs:
        for number in range(5):
            rig.attack(f"198.51.100.{number}")
        rig.wait(COMMIT_AFTER)
    assert enforcer.blocked == {"198.51.100.0", "198.51.100.1"}
    assert [one["event"] for one in logs] == ["fuse blown"]
    (alert,) = rig.alerts_of("vedette-fuse-blown")
    assert (alert.level, alert.count) == (Level.HIGH, 1)
    assert alert.labels["rule.id"] == "vedette-fuse-blown"
    assert "198.51.100.2" in alert.sample
    assert "brute" in alert.sample
    assert "pager" in [item.notification.receiver for item in rig.state.outbox()]
    assert rig.counters.value("responses_refused", RefusalReason.FUSE_BLOWN) == 3


def test_a_fuse_that_blew_in_a_commit_the_disk_refused_is_told_all_the_same(enforcer: FakeEnforcer):
    rig = Rig(enforcers=[enforcer], fuse={"per_minute": 1})
    rig.attack("198.51.100.0")
    rig.state.refusing = True
    rig.attack("198.51.100.1")
    rig.state.refusing = False
    rig.wait(RETRY_AFTER)
    rig.wait(COMMIT_AFTER)
    assert len(rig.alerts_of("vedette-fuse-blown")) == 1


# ------------------------------------------------------------------------------------------------ others write too


def operator(rig: Rig) -> Policy:
    return Policy(RespondSettings(), (), rig.guard, "host-1")


def test_a_block_another_process_wrote_is_in_force_at_the_next_look(tmp_path, enforcer: FakeEnforcer):
    with closing(State(tmp_path / "state.db")) as ours, closing(State(tmp_path / "state.db")) as theirs:
        rig = Rig(state=ours, enforcers=[enforcer])
        rig.pipeline.tick()
        enforcer.calls.clear()
        rig.wait(FOREIGN_EVERY)
        assert enforcer.calls == []
        with theirs.transaction() as tx:
            operator(rig).block(tx, OTHER, HOUR, "seen scanning", "alice", rig.clock.now())
        rig.wait(FOREIGN_EVERY - 1)
        assert enforcer.calls == []
        rig.wait(1)
        assert enforcer.calls == ["sync"]
        assert enforcer.blocked == {OTHER}
        assert rig.woken == 1
        with theirs.transaction() as tx:
            operator(rig).unblock(tx, OTHER, "alice", rig.clock.now())
        rig.wait(FOREIGN_EVERY)
        assert enforcer.blocked == set()
        # Our own commits are no news.
        rig.attack()
        enforcer.calls.clear()
        rig.wait(FOREIGN_EVERY)
        assert enforcer.calls == []


def test_a_rule_does_not_shorten_or_repeat_a_block_another_process_wrote(tmp_path, enforcer: FakeEnforcer):
    with closing(State(tmp_path / "state.db")) as ours, closing(State(tmp_path / "state.db")) as theirs:
        rig = Rig(state=ours, enforcers=[enforcer])
        rig.attack(OTHER)
        with theirs.transaction() as tx:
            operator(rig).block(tx, ATTACKER, DAY, "seen scanning", "alice", rig.clock.now())
        rig.wait(FOREIGN_EVERY)
        rig.attack()
        (decision,) = [one for one in ours.decisions() if one.target.value == ATTACKER]
        assert decision.owner == "operator:alice"


def test_a_nudge_from_another_thread_of_ours_is_looked_at(rig: Rig, enforcer: FakeEnforcer):
    rig.wait(FOREIGN_EVERY)
    assert enforcer.calls == []
    rig.pipeline.nudge()
    rig.wait(FOREIGN_EVERY)
    assert enforcer.calls == ["sync"]
    rig.wait(FOREIGN_EVERY)
    assert enforcer.calls == ["sync"]


def test_an_entry_written_before_the_finding_holds_for_it(rig: Rig, enforcer: FakeEnforcer):
    rig.allowed_meanwhile = [Entry(ip_network(ATTACKER), "the tester")]
    rig.attack()
    assert enforcer.blocked == set()
    assert rig.counters.value("responses_refused", RefusalReason.ALLOWLISTED) == 1


def test_what_must_not_be_blocked_any_more_is_let_go_also_when_the_disk_refused_at_first(
    rig: Rig, enforcer: FakeEnforcer
):
    rig.attack()
    rig.allowed_meanwhile = [Entry(ip_network(ATTACKER), "the tester")]
    rig.state.refusing = True
    rig.wait(FOREIGN_EVERY)
    assert enforcer.blocked == {ATTACKER}
    rig.state.refusing = False
    rig.wait(FOREIGN_EVERY)
    assert enforcer.blocked == set()
    (decision,) = rig.state.decisions()
    assert (decision.state, decision.lift_reason) == (DecisionState.LIFTED, LiftReason.ALLOWLISTED)
    begun = rig.state.transactions
    rig.wait(FOREIGN_EVERY)
    assert rig.state.transactions == begun


# ------------------------------------------------------------------------------------------------ time


def test_a_skewed_source_is_said_once_an_hour():
    rig = Rig(skew_limit=SKEW_LIMIT)
    for minute in range(61):
        off = rig.clock.now() - SKEW_LIMIT - SECOND
        rig.take(rig.line("failed", at=off), source="journal")
        if minute == 30:
            rig.take(rig.line("failed", at=off), source="file:other")
        rig.wait(MINUTE)
    alerts = {alert.labels["vedette.source"]: alert.finding_count for alert in rig.alerts_of("vedette-clock-skewed")}
    assert alerts == {"journal": 2, "file:other": 1}


def test_a_pattern_that_cannot_decide_is_said_of_its_rule_once_an_hour():
    slow = Rule("slow", "Slow", Level.LOW, when=Test("user.name", Op.REGEX, (r"^(?=a)(a+)+$",)), key=("host.name",))
    rig = Rig(rules=(*RULES, slow))
    for minute in range(61):
        rig.take(rig.line("failed", more=f"user.name={'a' * (40 + minute)}b"))
        rig.wait(MINUTE)
    (alert,) = rig.alerts_of("vedette-pattern-undecided")
    assert (alert.labels["vedette.rule"], alert.finding_count, alert.level) == ("slow", 2, Level.LOW)
    assert rig.alerts_of("slow") == []
    assert rig.counters.value("values_undecided") == 61


def test_times_within_the_limit_are_no_skew():
    rig = Rig(skew_limit=SKEW_LIMIT)
    rig.take(rig.line("failed", at=rig.clock.now() - SKEW_LIMIT + SECOND))
    rig.wait(COMMIT_AFTER)
    assert rig.alerts_of("vedette-clock-skewed") == []


def test_quiet_alerts_are_resolved_and_high_ones_never(rig: Rig):
    loud = replace(BRUTE, id="loud", level=Level.HIGH, response=None)
    rig = Rig(rules=[*RULES, loud])
    rig.attack()
    rig.wait(DAY)
    assert {alert.state for alert in rig.state.alerts()} == {AlertState.OPEN}
    rig.wait(MINUTE)
    assert {alert.rule_id: (alert.state, alert.resolve_reason) for alert in rig.state.alerts()} == {
        "brute": (AlertState.RESOLVED, ResolveReason.QUIET),
        "loud": (AlertState.OPEN, ResolveReason.NONE),
    }


def test_a_condition_ends_with_its_clearing_record(rig: Rig):
    rig.take(rig.line("stopped"))
    rig.take(rig.line("started"))
    (alert,) = rig.alerts_of("stopped")
    assert (alert.state, alert.resolve_reason) == (AlertState.RESOLVED, ResolveReason.CLEARED)


def test_the_sign_of_life_moves_with_batches_and_ticks(rig: Rig):
    rig.clock.advance(SECOND)
    rig.take(rig.line("accepted"))
    assert rig.pipeline.last_alive == rig.clock.now()
    rig.wait(SECOND)
    assert rig.pipeline.last_alive == rig.clock.now()
    before = rig.clock.now()
    rig.clock.advance(SECOND)
    assert rig.pipeline.last_alive == before


# ------------------------------------------------------------------------------------------------ any crash, anywhere

ACTIONS = ("failed", "failed", "failed", "stopped", "started", "accepted")
LINES = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from([ATTACKER, OTHER, "192.0.2.1"]), st.integers(0, 200)),
    min_size=1,
    max_size=40,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(1, 7)),
        st.tuples(st.just("wait"), st.sampled_from([1, COMMIT_AFTER // 2, COMMIT_AFTER])),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("refuse"), st.just(0)),
        st.tuples(st.just("mend"), st.just(0)),
    ),
    max_size=40,
)


def outcome_of(rig: Rig) -> dict[str, object]:
    """What must not depend on crashes: times of commits and random ids left out."""
    state = rig.state
    return {
        "findings": sorted((one.id, one.count) for one in state.findings(sorted(state._tables.findings))),
        "alerts": sorted((one.key, one.state, one.count, one.finding_ids) for one in state.alerts(limit=1000)),
        "decisions": sorted((one.target.value, one.finding_id) for one in state.decisions(limit=1000)),
        "correlation": sorted((rule, key) for rule, key, _ in state.correlation() if rule),
        "cursor": state.cursors().get("journal", "0"),
    }


@settings(max_examples=60)
@given(LINES, STEPS)
def test_crashes_and_refusals_change_nothing_of_what_comes_out(written, steps):
    start = Rig().clock.now()
    at, lines = start, []
    for number, (action, address, pause) in enumerate(written):
        at += pause * SECOND
        lines.append(
            f"t={at // SECOND} event.action={action} source.ip={address} host.name={address} source.port={number}"
        )

    plain = Rig()
    plain.clock.set(at)
    for line in lines:
        plain.take(line)
    plain.pipeline.close()

    rig = Rig(enforcers=[FakeEnforcer()])
    rig.clock.set(at)

    def read(count: int) -> None:
        batch = lines[rig._position : rig._position + count]
        if batch:
            rig.take(*batch)

    for name, value in steps:
        if name == "read":
            read(value)
        elif name == "wait":
            rig.wait(value)
        elif name == "crash":
            rig.start()
            rig._position = int(rig.state.cursors().get("journal", "0"))
        else:
            rig.state.refusing = name == "refuse"
    rig.state.refusing = False
    read(len(lines))
    rig.pipeline.close()
    assert outcome_of(rig) == outcome_of(plain)
    assert rig.enforcers[0].blocked == {one.target.value for one in rig.state.active_decisions(rig.clock.now())}


def test_a_simulated_decision_enforces_nothing(enforcer: FakeEnforcer):
    rig = Rig(enforcers=[enforcer], rung=Rung.SIMULATE)
    rig.attack()
    rig.wait(SYNC_EVERY)
    assert enforcer.blocked == set()
    assert [one.state for one in rig.state.decisions()] == [DecisionState.SIMULATED]


def test_the_double_holds_to_what_a_refused_transaction_means():
    state = RefusableState()
    state.refusing = True
    with pytest.raises(Exception, match="disk full"):
        with state.transaction() as tx:
            tx.save_cursor("journal", "1")
    assert state.cursors() == {}


def test_a_clock_set_back_holds_nothing_up(tmp_path, enforcer: FakeEnforcer):
    with closing(State(tmp_path / "state.db")) as ours, closing(State(tmp_path / "state.db")) as theirs:
        rig = Rig(state=ours, enforcers=[enforcer])
        rig.attack()
        rig.pipeline.tick()
        wait = rig.wait(-DAY)
        assert 0 < wait <= FOREIGN_EVERY / SECOND
        with theirs.transaction() as tx:
            operator(rig).unblock(tx, ATTACKER, "alice", rig.clock.now())
        rig.wait(FOREIGN_EVERY)
        assert enforcer.blocked == set()
        enforcer.calls.clear()
        rig.wait(SYNC_EVERY)
        assert enforcer.calls == ["sync"]


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_to_be_told_does_not_wait_for_the_old_time_to_come_round(rig: Rig, restarted: bool):
    rig.attack("198.51.100.1")
    rig.wait(30 * SECOND)
    assert len(rig.state.outbox()) == 1
    rig.attack("198.51.100.2")  # told five minutes after the first mail
    rig.clock.advance(-DAY)
    if restarted:
        rig.start()
    rig.pipeline.tick()
    rig.wait(4 * MINUTE)
    assert len(rig.state.outbox()) == 1
    rig.wait(MINUTE + SECOND)
    assert len(rig.state.outbox()) == 2


def test_what_was_put_on_the_allowlist_while_nobody_ran_is_let_go_at_the_start(rig: Rig, enforcer: FakeEnforcer):
    rig.attack()
    assert enforcer.blocked == {ATTACKER}
    rig.guard.allow(Entry(ip_network(ATTACKER), "the tester"))
    rig.start()
    rig.pipeline.tick()
    assert enforcer.blocked == set()
    assert [one.lift_reason for one in rig.state.decisions()] == [LiftReason.ALLOWLISTED]


def test_a_flood_that_waits_for_the_disk_does_not_push_out_what_is_urgent(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "WAITING_LIMIT", 3)
    rig.state.refusing = True
    rig.take(rig.line("stopped"))
    for number in range(5):
        rig.attack(f"198.51.100.{number}")
        rig.wait(RETRY_AFTER)
    rig.state.refusing = False
    rig.wait(RETRY_AFTER)
    assert len(rig.alerts_of("stopped")) == 1
    assert rig.decided() == {"198.51.100.3", "198.51.100.4"}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_set_back_makes_no_record_late(rig: Rig, enforcer: FakeEnforcer, restarted: bool):
    rig.take(rig.line("failed"))
    rig.wait(COMMIT_AFTER)
    rig.clock.advance(-HOUR)
    if restarted:
        rig.start()
    # No tick in between: the first batch counts too.
    rig.attack(OTHER)
    assert enforcer.blocked == {OTHER}
    assert rig.counters.value("records_dropped", "late") == 0


def test_a_clock_set_back_begins_the_count_of_an_address_anew_and_keeps_its_alert(rig: Rig, enforcer: FakeEnforcer):
    rig.attack()
    rig.clock.advance(-HOUR)
    rig.attack()
    (alert,) = rig.alerts_of("brute")
    assert alert.finding_count == 2


# ------------------------------------------------------------------------------------------------ retention


def aged(rig: Rig, kind: Kept) -> int:
    return len(
        {
            Kept.ALERTS: lambda: rig.state.alerts(),
            Kept.FINDINGS: lambda: rig.state.recent_findings(),
            Kept.DECISIONS: lambda: rig.state.decisions(),
            Kept.OUTBOX: lambda: rig.state.outbox([OutboxState.DELIVERED]),
        }[kind]()
    )


def test_what_is_finished_is_let_go_when_it_is_old_enough_and_not_before():
    rig = Rig(rung=Rung.ENFORCE, retention=RetentionSettings(history="90d", decisions="400d").ages())
    rig.attack()
    rig.wait(MINUTE)
    (item,) = rig.state.outbox()
    rig.state.save_outbox(replace(item, state=OutboxState.DELIVERED))
    kinds = (Kept.ALERTS, Kept.FINDINGS, Kept.OUTBOX, Kept.DECISIONS)
    start = rig.clock.now()

    def left(day: int) -> list[int]:
        rig.clock.set(start + day * DAY)
        for _ in range(12):  # nothing is let go within ten minutes of a jump
            rig.wait(MINUTE)
        return [aged(rig, kind) for kind in kinds]

    # The alert is quiet, and so ends, on the first day.
    assert left(2) == [1, 1, 1, 1]
    assert left(89) == [1, 1, 1, 1]
    assert left(90) == [1, 0, 0, 1]
    assert left(93) == [0, 0, 0, 1]
    assert left(399) == [0, 0, 0, 1]
    assert left(401) == [0, 0, 0, 0]
    assert rig.counters.value("records_pruned", Kept.FINDINGS) == 1


def test_nothing_is_let_go_right_after_a_start_or_a_jump_of_the_clock():
    rig = Rig(retention=RetentionSettings().ages())
    rig.attack()
    rig.wait(MINUTE)
    rig.clock.advance(-MINUTE)
    rig.pipeline.tick()
    rig.wait(1000 * DAY)
    for _ in range(9):
        rig.wait(MINUTE)
    assert len(rig.state.recent_findings()) == 1
    rig.wait(-1000 * DAY)
    for _ in range(30):
        rig.wait(MINUTE)
    assert len(rig.state.recent_findings()) == 1
    assert rig.counters.value("records_pruned", Kept.FINDINGS) == 0


def test_much_is_let_go_in_small_transactions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PRUNE_ROWS", 2)
    rig = Rig(retention={Kept.FINDINGS: HOUR})
    for number in range(5):
        rig.attack(f"198.51.100.{number}")
    for alert in rig.state.alerts():
        with rig.state.transaction() as tx:
            tx.save_alert(replace(alert, state=AlertState.RESOLVED))
    for _ in range(61):
        rig.wait(MINUTE)
    assert len(rig.state.recent_findings()) == 3
    rig.wait(SECOND)
    rig.wait(SECOND)
    assert len(rig.state.recent_findings()) == 0


def test_a_disk_that_refuses_keeps_what_is_old_and_stops_nothing(rig: Rig):
    rig = Rig(retention={Kept.REFUSALS: HOUR}, rung=Rung.OBSERVE)
    rig.attack()
    rig.state.refusing = True
    for _ in range(70):
        rig.wait(MINUTE)
    assert sum(one.count for one in rig.state.refusal_counts()) == 1
    rig.state.refusing = False
    rig.wait(MINUTE)
    assert rig.state.refusal_counts() == []


def test_warming_up_leaves_no_trace(rig: Rig):
    correlation = list(rig.state.correlation())
    rig.pipeline.warm_up()
    assert (rig.state.recent_findings(), rig.state.cursors()) == ([], {})
    assert list(rig.state.correlation()) == correlation
    assert (rig.state.groups(), rig.state.outbox(), rig.state.decisions(), rig.decided()) == ([], [], [], set())
    rig.attack()
    assert len(rig.decided()) == 1


def test_a_state_that_was_taken_away_is_news(rig: Rig):
    rig.state.found = Mended.WRITTEN_ANEW
    rig.wait(FOREIGN_EVERY)
    rig.wait(COMMIT_AFTER)
    with rig.state.transaction() as tx:
        assert [one.rule_id for one in tx.unresolved_alerts()] == ["vedette-state-removed"]


def test_another_file_in_the_place_of_the_state_ends_the_program(rig: Rig):
    rig.state.found = Mended.REPLACED
    with pytest.raises(StateError, match="another file"):
        rig.wait(FOREIGN_EVERY)
