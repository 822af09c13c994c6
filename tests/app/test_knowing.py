from __future__ import annotations

from dataclasses import replace

import pytest
from tests.app.parts import ATTACKER, BRUTE, FakeEnforcer, Rig

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, matcher_of
from vedette.app.knowing import Knowing
from vedette.model.batch import Trust
from vedette.model.clock import DAY, SECOND
from vedette.model.reasons import RefusalReason
from vedette.respond.known_logins import KnownLogins
from vedette.respond.settings import KnownLoginSettings


@pytest.fixture
def enforcer() -> FakeEnforcer:
    return FakeEnforcer()


@pytest.fixture
def rig(enforcer: FakeEnforcer) -> Rig:
    return Rig(enforcers=[enforcer])


def log_in(rig: Rig, user: str = "alice") -> None:
    rig.take(rig.line("accepted", more=f"user.name={user}"))


def guess(rig: Rig, user: str = "alice", times: int = 1) -> None:
    for _ in range(times):
        rig.clock.advance(SECOND)
        rig.take(rig.line("failed", more=f"user.name={user}"))


def test_she_who_logged_in_lately_is_blocked_at_three_times_the_threshold_and_at_once(rig: Rig, enforcer: FakeEnforcer):
    log_in(rig)
    guess(rig, times=8)
    assert enforcer.blocked == set()
    assert [one.reason for one in rig.state.refusal_counts()] == [RefusalReason.KNOWN_LOGIN]
    guess(rig)
    assert enforcer.blocked == {ATTACKER}
    (alert,) = rig.alerts_of("brute")
    assert alert.count == 9
    assert [(one.alert_id, one.finding_id) for one in rig.state.decisions()] == [(alert.id, alert.finding_ids[0])]


def test_others_from_her_address_are_blocked_as_ever(rig: Rig, enforcer: FakeEnforcer):
    log_in(rig)
    guess(rig, "root", times=3)
    assert enforcer.blocked == {ATTACKER}


def test_a_login_and_failures_in_one_batch_count_in_their_order(rig: Rig, enforcer: FakeEnforcer):
    failed, accepted = (rig.line(action, more="user.name=alice") for action in ("failed", "accepted"))
    rig.take(accepted, *[failed] * 8)
    assert enforcer.blocked == set()
    rig.take(failed)
    assert enforcer.blocked == {ATTACKER}


def test_a_login_anybody_could_have_written_is_none(rig: Rig, enforcer: FakeEnforcer):
    forged = rig.batch([rig.line("accepted", more="user.name=alice")])
    rig.pipeline.take(replace(forged, trust=Trust.FORGEABLE))
    guess(rig, times=3)
    assert enforcer.blocked == {ATTACKER}


@pytest.mark.parametrize("before", range(9))
def test_a_restart_in_between_changes_nothing(rig: Rig, enforcer: FakeEnforcer, before: int):
    log_in(rig)
    guess(rig, times=before)
    rig.pipeline.close()
    rig.start()
    guess(rig, times=8 - before)
    assert enforcer.blocked == set()
    guess(rig)
    assert enforcer.blocked == {ATTACKER}


def test_a_disk_that_refuses_the_block_is_asked_again(rig: Rig, enforcer: FakeEnforcer):
    log_in(rig)
    guess(rig, times=8)
    rig.wait(SECOND)
    rig.state.refusing = True
    guess(rig)
    assert enforcer.blocked == set()
    rig.state.refusing = False
    rig.wait(2 * SECOND)
    assert enforcer.blocked == {ATTACKER}


def test_a_week_later_she_is_like_everybody(rig: Rig, enforcer: FakeEnforcer):
    log_in(rig)
    rig.wait(8 * DAY)
    guess(rig, times=3)
    assert enforcer.blocked == {ATTACKER}


def test_real_lines_say_who_logged_in():
    lines = [
        b"Mar  1 10:00:00 web1 sshd[8]: Accepted publickey for alice from 198.51.100.7 port 5 ssh2: ED25519 SHA256:x",
        b"Mar  1 10:00:01 web1 sshd[8]: Failed password for bob from 203.0.113.5 port 5 ssh2",
        b"Mar  1 10:00:02 web1 sshd[8]: Accepted password for eve from 203.0.113.5 port 5 ssh2",
        b"Mar  1 10:00:03 web1 sshd[9]: pam_unix(sshd:session): session opened for user eve by (uid=0)",
    ]
    matcher = matcher_of([own.LOGIN, BRUTE], counter=Counters())
    for accepted, expected in ((True, [True, True]), (False, [False, False])):
        known = KnownLogins(KnownLoginSettings(), [BRUTE])
        batch = replace(batch_of_lines(lines, year=2026), trust=Trust.FORGEABLE, read_at=2**60)
        Knowing(known, matcher.rules, own.LOGIN.id, lambda _source, yes=accepted: yes).see(batch, matcher.match(batch))
        assert [known.knows(address) for address in ("198.51.100.7", "203.0.113.5")] == expected
