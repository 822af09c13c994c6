from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.respond.parts import HOUR, MINUTE, NOW, Bench, finding

from vedette.model.clock import DAY
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.reasons import RefusalReason
from vedette.model.rules import Comparison, Correlate, CorrelationKind, Response, Rule, Threshold
from vedette.respond import known_logins as module
from vedette.respond.known_logins import OWNER, Counting, KnownLogins, counting_of
from vedette.respond.policy import Policy
from vedette.respond.settings import KnownLoginSettings

OFFICE = "198.51.100.7"
GUESSES = Rule(
    "guesses",
    "Guesser",
    Level.MEDIUM,
    correlate=Correlate(
        CorrelationKind.EVENT_COUNT, ("failed",), ("source.ip",), 10 * MINUTE, (Threshold(Comparison.GTE, 5),)
    ),
    response=Response(lease=HOUR),
    tags=("attack.credential-access", "attack.t1110.001"),
)
PREFIX = Rule(
    "prefix", "Network", Level.MEDIUM, response=Response(target="vedette.source.prefix"), tags=("attack.t1110.001",)
)


def known_logins(**words) -> KnownLogins:
    return KnownLogins(KnownLoginSettings(**words), [GUESSES, PREFIX])


def guessed(count: int = 5, address: str = OFFICE, *, time: int = NOW):
    return finding(address, rule="guesses", time=time, count=count)


def fail(known: KnownLogins, user: str, count: int, *, address: str = OFFICE, at: int = NOW) -> None:
    for _ in range(count):
        known.failed("guesses", user, address, at)


def failures_until_block(known: KnownLogins, user: str, address: str = OFFICE, most: int = 40) -> int:
    """How many failures of `user` it takes after which a rule of five would block."""
    for count in range(1, most):
        fail(known, user, 1, address=address)
        if count == 5 and not known.holds_back(guessed(address=address), address, NOW):
            return count
        if count > 5 and known.ripe(NOW):
            return count
    return most


@pytest.mark.parametrize("factor", [1, 2, 3, 10])
def test_the_threshold_of_that_user_and_address_is_raised_and_nothing_else(factor: int):
    known = known_logins(factor=factor)
    known.succeeded("alice", OFFICE, NOW - DAY)
    assert failures_until_block(known, "alice", most=100) == 5 * factor


@pytest.mark.parametrize(
    ("user", "address", "login"),
    [
        ("bob", OFFICE, NOW - DAY),  # who owns one account gains nothing against others
        ("alice", "203.0.113.5", NOW - DAY),
        ("alice", OFFICE, NOW - 8 * DAY),
    ],
)
def test_others_from_there_she_elsewhere_and_a_login_long_ago_gain_nothing(user: str, address: str, login: int):
    known = known_logins()
    known.succeeded("alice", OFFICE, login)
    assert failures_until_block(known, user, address) == 5


def test_failures_of_others_weigh_in_full_beside_hers():
    known = known_logins()
    known.succeeded("alice", OFFICE, NOW - DAY)
    fail(known, "alice", 6)
    assert known.holds_back(guessed(6), OFFICE, NOW)
    fail(known, "root", 2)
    assert known.ripe(NOW) == []  # 6/3 + 2 = 4
    fail(known, "oracle", 1)
    (ripe,) = known.ripe(NOW)
    assert ripe.rule_id == "guesses"
    assert known.ripe(NOW) == []


def test_what_was_counted_before_anybody_logged_in_there_weighs_in_full():
    known = known_logins()
    known.succeeded("alice", OFFICE, NOW)
    fail(known, "alice", 1)
    assert known.holds_back(guessed(5), OFFICE, NOW)
    fail(known, "alice", 1)
    assert known.ripe(NOW) == []
    fail(known, "alice", 1)
    assert len(known.ripe(NOW)) == 1


def test_what_left_the_window_counts_no_more():
    known = known_logins()
    known.succeeded("alice", OFFICE, NOW - DAY)
    fail(known, "alice", 14)
    assert known.holds_back(guessed(14), OFFICE, NOW)
    later = NOW + 10 * MINUTE + 1
    fail(known, "alice", 14, at=later)
    assert known.ripe(later) == []
    fail(known, "alice", 1, at=later)
    assert [one.time for one in known.ripe(later)] == [later]


def test_a_record_that_stands_for_many_counts_as_many():
    known = known_logins()
    known.succeeded("alice", OFFICE, NOW)
    known.failed("guesses", "alice", OFFICE, NOW, 14)
    assert known.holds_back(guessed(14), OFFICE, NOW)
    known.failed("guesses", "alice", OFFICE, NOW, 1)
    assert len(known.ripe(NOW)) == 1


def test_a_finding_judged_twice_is_counted_once():
    known = known_logins()
    known.succeeded("alice", OFFICE, NOW)
    once = guessed(4)
    assert known.holds_back(once, OFFICE, NOW)
    assert known.holds_back(once, OFFICE, NOW)  # the disk refused the commit in between


def test_prefixes_around_a_known_address():
    known = known_logins()
    known.succeeded("alice", OFFICE, NOW - DAY)
    known.succeeded("bob", "2001:db8::1", NOW - 8 * DAY)
    assert known.covers(ip_network("198.51.100.0/24"), NOW)
    assert not known.covers(ip_network("203.0.113.0/24"), NOW)
    assert not known.covers(ip_network("2001:db8::/64"), NOW)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Counting(("failed",), 5, 10 * MINUTE)),
        ({"tags": ("attack.t1190",)}, None),
        ({"response": None}, None),
        ({"correlate": None}, None),
        ({"response": Response(target="vedette.source.prefix")}, None),
    ],
)
def test_which_rules_count_guesses(changes, expected):
    assert counting_of(replace(GUESSES, **changes)) == expected


@pytest.mark.parametrize(
    ("changes", "threshold"),
    [
        ({"threshold": (Threshold(Comparison.GT, 5),)}, 6),
        ({"threshold": (Threshold(Comparison.LT, 5),)}, None),
        ({"threshold": (Threshold(Comparison.GTE, 5), Threshold(Comparison.LT, 9))}, None),
        ({"kind": CorrelationKind.VALUE_COUNT}, None),
        ({"group_by": ("source.ip", "user.name")}, None),
        ({"preceding": True}, None),
    ],
)
def test_which_correlations_do(changes, threshold):
    found = counting_of(replace(GUESSES, correlate=replace(GUESSES.correlate, **changes)))
    assert (found and found.threshold) == threshold


# ------------------------------------------------------------------------------------------------ bounds and keeping


def test_only_so_many_addresses_and_users_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ADDRESSES", 3)
    monkeypatch.setattr(module, "USERS", 2)
    known = known_logins()
    for last in (1, 2, 1, 3, 4):
        known.succeeded("alice", f"198.51.100.{last}", NOW)
    assert [known.knows(f"198.51.100.{last}") for last in (1, 2, 3, 4)] == [True, False, True, True]
    assert (OWNER, '[["source.ip","198.51.100.2"]]') in known.changes()
    for user in ("bob", "carol", "bob", "dave"):
        known.succeeded(user, "198.51.100.1", NOW)
    assert failures_until_block(known, "carol", "198.51.100.1") == 5


@pytest.mark.parametrize(("later", "given_back"), [(0, True), (10 * MINUTE, True), (10 * MINUTE + 1, False)])
def test_what_was_held_back_where_nobody_is_known_any_more_is_given_back(
    monkeypatch: pytest.MonkeyPatch, later: int, given_back: bool
):
    monkeypatch.setattr(module, "ADDRESSES", 2)
    known, rows = known_logins(), {}
    known.succeeded("alice", OFFICE, NOW - 2 * DAY)
    fail(known, "alice", 5)
    assert known.holds_back(guessed(time=NOW - MINUTE), OFFICE, NOW)
    stored(known, rows)
    # Whoever owns an account and many addresses could push the first one out and go on guessing there.
    for last in (1, 2):
        known.succeeded("alice", f"203.0.113.{last}", NOW + later)
    assert not known.knows(OFFICE)
    assert [(one.rule_id, one.time) for one in known.ripe(NOW + later)] == [("guesses", NOW)] * given_back
    assert known.ripe(NOW + later) == []
    # So could a restart, where the login has become too old, or logins count no more.
    forgetful = known_logins(factor=1)
    forgetful.restore([(owner, key, data) for (owner, key), data in rows.items() if data is not None], NOW + later)
    assert [(one.rule_id, one.time) for one in forgetful.ripe(NOW + later)] == [("guesses", NOW)] * given_back


def test_many_failures_take_no_room():
    known = known_logins()
    known.succeeded("alice", OFFICE, NOW)
    fail(known, "alice", 5000)
    ((_, row),) = known.changes().items()
    assert row is not None
    assert len(row) < 2000


def stored(known: KnownLogins, rows: dict) -> None:
    rows.update(known.changes())


def restored(rows: dict, now: int = NOW) -> KnownLogins:
    known = known_logins()
    known.restore([(owner, key, data) for (owner, key), data in rows.items() if data is not None], now)
    return known


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["alice", "bob", "root"]), st.booleans()), max_size=25), st.integers(0, 24))
def test_a_restart_at_any_point_changes_nothing(steps, at):
    def played(restart: bool) -> list:
        known, rows, seen = known_logins(), {}, []
        known.succeeded("alice", OFFICE, NOW - DAY)
        for number, (user, success) in enumerate(steps):
            if restart and number == at:
                stored(known, rows)
                known = restored(rows)
            if success:
                known.succeeded(user, OFFICE, NOW)
            else:
                fail(known, user, 1)
            if number == 5:
                seen.append(known.holds_back(msgspec.structs.replace(guessed(), id="one"), OFFICE, NOW))
            seen.append([one.id for one in known.ripe(NOW)])
        return seen

    assert played(restart=True) == played(restart=False)


def test_rows_too_old_go_and_damaged_or_newer_ones_are_said():
    known, rows = known_logins(), {}
    known.succeeded("alice", OFFICE, NOW)
    stored(known, rows)
    later = restored(rows, NOW + 8 * DAY)
    assert not later.knows(OFFICE)
    ((key, row),) = later.changes().items()
    assert (key, row) == ((OWNER, '[["source.ip","198.51.100.7"]]'), None)
    for damage in (b"{", rows[key].replace(b'"version":1', b'"version":2')):
        with pytest.raises(StateError):
            restored({key: damage})
    known = known_logins()
    known.restore([("brute", "[]", b"another's")], NOW)
    assert len(known) == 0


def test_a_login_every_minute_is_written_once_an_hour():
    known = known_logins()
    written = 0
    for minute in range(120):
        known.succeeded("ansible", OFFICE, NOW + minute * MINUTE)
        written += bool(known.changes())
    assert written == 2


def test_a_login_is_written_though_others_logged_in_there_a_moment_ago():
    known, rows = known_logins(), {}
    known.succeeded("alice", OFFICE, NOW - 8 * DAY)
    known.succeeded("bob", OFFICE, NOW - MINUTE)
    stored(known, rows)
    known.succeeded("alice", OFFICE, NOW)
    stored(known, rows)
    assert failures_until_block(restored(rows), "alice") == 15


# ------------------------------------------------------------------------------------------------ the policy asks


class Known(Bench):
    def __init__(self, **words) -> None:
        super().__init__(rules=[GUESSES, PREFIX], rungs={"guesses": "enforce", "prefix": "enforce"}, **words)
        self.known = KnownLogins(self.settings.known_logins, self.rules)
        self.policy = Policy(self.settings, self.rules, self.guard, "h", self.known)


def test_the_policy_refuses_with_a_reason_and_blocks_later():
    bench = Known()
    bench.known.succeeded("alice", OFFICE, NOW - DAY)
    fail(bench.known, "alice", 5)
    assert [one.reason for one in bench.decide(guessed()).refusals] == [RefusalReason.KNOWN_LOGIN]
    assert not bench.store.active
    fail(bench.known, "alice", 10)
    bench.decide(*bench.known.ripe(NOW))
    assert list(bench.store.active) == [OFFICE]


def test_no_prefix_around_her_is_blocked_and_no_64_widened():
    bench = Known()
    bench.known.succeeded("alice", OFFICE, NOW - DAY)
    bench.known.succeeded("alice", "2001:db8::a", NOW - DAY)
    network = finding(rule="prefix", key={"vedette.source.prefix": "198.51.100.0/24"})
    assert [one.reason for one in bench.decide(network).refusals] == [RefusalReason.KNOWN_LOGIN]
    for last in range(1, 4):
        bench.decide(guessed(address=f"2001:db8::{last}"))
        bench.decide(guessed(address=f"2001:db8:1::{last}"))
    assert sorted(bench.store.active) == ["2001:db8:1::/64", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
