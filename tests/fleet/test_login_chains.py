"""Who was where when somebody logged in elsewhere.
Counterpart: src/vedette/fleet/login_chains.py."""

from __future__ import annotations

import msgspec
import pytest

from vedette.app.counters import Counters
from vedette.fleet import login_chains
from vedette.fleet.login_chains import KNOWN_AFTER, OWNER, PATIENCE, SETTLE, ChainVerdict, Login, LoginChains
from vedette.model.clock import MINUTE, SECOND
from vedette.model.errors import StateError
from vedette.testing.clock import START

GW, DB, WEB = "gw", "db", "web"
NOW = START + 2 * KNOWN_AFTER


def fleet(*unattended: str) -> LoginChains:
    chains = LoginChains(Counters(), unattended)
    chains.has(GW, "gw1", ["10.0.0.1", "2001:db8::1"], START)
    chains.has(DB, "db3", ["10.0.0.3"], START)
    return chains


def login(at: int = NOW, *, user: str = "root", address: str = "10.0.0.1", host: str = DB) -> Login:
    return Login(host, "db3", user, address, at, f"{host}/journal/0:7")


def verdicts(chains: LoginChains, at: int = NOW + SETTLE, missing: frozenset[str] = frozenset()) -> list[str]:
    return [chain.verdict.value for chain in chains.ripe(at, missing)]


def test_whoever_has_a_session_where_the_login_came_from_is_named():
    chains = fleet()
    chains.opened(GW, "gw1", "77", "alice", NOW - 60 * MINUTE)
    chains.opened(GW, "gw1", "78", "bob", NOW - MINUTE)
    chains.closed(GW, "78", NOW - 30 * SECOND)
    chains.login(login())
    assert chains.ripe(NOW + SETTLE - 1, frozenset()) == []
    (chain,) = chains.ripe(NOW + SETTLE, frozenset())
    assert (chain.verdict, chain.via_name, chain.people) == (ChainVerdict.PERSON, "gw1", ("alice",))
    assert chains.ripe(NOW + 2 * SETTLE, frozenset()) == []


def test_a_login_from_where_nobody_is_is_said():
    chains = fleet()
    chains.opened(GW, "gw1", "77", "alice", NOW - 60 * MINUTE)
    chains.closed(GW, "77", NOW - MINUTE)
    chains.login(login(address="2001:db8::1"))
    assert verdicts(chains) == ["nobody"]


def test_what_the_other_host_logged_comes_later_and_counts():
    chains = fleet()
    chains.login(login())
    chains.opened(GW, "gw1", "77", "alice", NOW - SECOND)
    chains.closed(GW, "77", NOW + 2 * SECOND)
    assert verdicts(chains) == ["person"]


def test_clocks_a_little_apart_accuse_nobody():
    chains = fleet()
    chains.opened(GW, "gw1", "77", "alice", NOW + 3 * SECOND)
    chains.login(login())
    assert verdicts(chains) == ["person"]


def test_of_a_host_that_is_not_fully_heard_nothing_is_claimed_and_it_is_waited_for():
    chains = fleet()
    chains.login(login())
    assert verdicts(chains, missing=frozenset({GW})) == []
    assert verdicts(chains, NOW + PATIENCE, frozenset({GW})) == ["unknown"]
    chains.login(login())
    assert verdicts(chains, missing=frozenset({DB})) == ["nobody"]


def test_a_host_that_is_new_may_have_sessions_from_before():
    chains = fleet()
    at = START + KNOWN_AFTER - 1
    chains.login(login(at))
    assert verdicts(chains, at + SETTLE) == ["unknown"]


def test_a_host_that_was_switched_off_has_no_sessions_left():
    chains = fleet()
    chains.opened(GW, "gw1", "77", "alice", NOW - 60 * MINUTE)
    chains.began(GW, NOW - 30 * MINUTE)
    chains.began("never heard of", NOW)
    chains.login(login())
    assert verdicts(chains) == ["nobody"]


@pytest.mark.parametrize("named", ["backup@gw1", "*@gw1", "backup@*"])
def test_what_programs_do_is_named_and_not_said(named: str):
    chains = fleet(named)
    chains.login(login(user="backup"))
    assert verdicts(chains) == []
    chains = fleet("backup@gw2")
    chains.login(login(user="backup"))
    assert verdicts(chains) == ["nobody"]


def test_from_outside_and_from_itself_it_is_no_chain():
    chains = fleet()
    chains.login(login(address="203.0.113.9"))
    chains.login(login(address="10.0.0.3"))
    assert verdicts(chains) == []


def test_nobody_takes_an_address_from_who_has_it():
    chains = fleet()
    chains.has(WEB, "web1", ["10.0.0.1"], NOW - MINUTE)
    chains.opened(WEB, "web1", "9", "mallory", NOW - MINUTE)
    chains.login(login())
    assert verdicts(chains) == ["nobody"]
    # It moves when who had it says so.
    chains.has(GW, "gw1", [], NOW)
    chains.login(login())
    assert verdicts(chains) == ["person"]


def test_everything_is_kept_over_a_restart_and_newer_state_is_refused():
    chains = fleet()
    chains.opened(GW, "gw1", "77", "alice", NOW - MINUTE)
    chains.login(login())
    kept = [(owner, key, state) for (owner, key), state in chains.changes().items() if state is not None]
    assert {owner for owner, _, _ in kept} == {OWNER}
    assert chains.changes() == {}
    again = LoginChains(Counters())
    again.restore([*kept, ("ssh-other-rule", "x", b"none of ours")])
    (chain,) = again.ripe(NOW + SETTLE, frozenset())
    assert (chain.verdict, chain.people) == (ChainVerdict.PERSON, ("alice",))
    assert list(again.changes().values()) == [None]
    newer = msgspec.json.encode({"name": "gw1", "since": 1, "version": 2})
    with pytest.raises(StateError, match="newer"):
        LoginChains(Counters()).restore([(OWNER, '[["host.id","gw"]]', newer)])
    with pytest.raises(StateError, match="cannot be read"):
        LoginChains(Counters()).restore([(OWNER, '[["host.id","gw"]]', b"{")])


def test_a_number_that_is_used_again_ends_the_session_before():
    chains = fleet()
    chains.opened(GW, "gw1", "77", "alice", NOW - 60 * MINUTE)
    chains.opened(GW, "gw1", "77", "bob", NOW - 30 * MINUTE)
    chains.closed(GW, "77", NOW - 20 * MINUTE)
    chains.login(login())
    assert verdicts(chains) == ["nobody"]


def test_more_sessions_than_are_kept_accuse_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(login_chains, "_SESSIONS", 2)
    counters = Counters()
    chains = LoginChains(counters)
    chains.has(GW, "gw1", ["10.0.0.1"], START)
    for session in range(3):
        chains.opened(GW, "gw1", str(session), "alice", NOW - MINUTE)
    for session in range(3):
        chains.closed(GW, str(session), NOW - 30 * SECOND)
    chains.login(login())
    assert verdicts(chains) == ["unknown"]
    assert counters.value("login_chains_lost", "too-many-sessions") == 1


def test_a_login_whose_address_nobody_has_any_more_is_counted():
    counters = Counters()
    chains = LoginChains(counters)
    chains.has(GW, "gw1", ["10.0.0.1"], START)
    chains.login(login())
    chains.has(GW, "gw1", [], NOW)
    assert verdicts(chains) == []
    assert counters.value("login_chains_lost", "address-moved") == 1


def test_a_host_whose_clock_runs_ahead_holds_up_no_other():
    chains = fleet()
    chains.login(login(NOW + 10 * MINUTE))
    chains.login(login())
    assert verdicts(chains) == ["nobody"]
