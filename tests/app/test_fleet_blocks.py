"""What rules of the fleet may have agents block: on evidence of more than one host, and never one of our own.
Counterpart: src/vedette/app/fleet_blocks.py; tests/scenarios/test_fleet_control.py has the agents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vedette.app.counters import Counters
from vedette.app.fleet_blocks import FleetEnforcer
from vedette.app.hub_control import HubControl
from vedette.fleet.hub_settings import FleetBlockSettings, HubSettings
from vedette.fleet.login_chains import LoginChains
from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.model.decisions import Decision
from vedette.model.errors import EnforcementError
from vedette.model.fleet import AgentState, Joining, JoinToken
from vedette.model.levels import Level
from vedette.model.rules import Op, Rule, Scope, Test
from vedette.respond.active import target_of
from vedette.respond.settings import RespondSettings
from vedette.store.agents import Agents
from vedette.store.fleet_blocks import FleetBlock, FleetBlocks, FleetBlockState, HostAnswer
from vedette.store.state import State
from vedette.testing.clock import START, FakeClock
from vedette.text.addresses import parse_network

ATTACKER = "203.0.113.9"
RULE = Rule("fleet-spraying", "", Level.HIGH, when=Test("a", Op.EQUALS, ("b",)), scope=Scope.FLEET)
HOST_RULE = Rule("host-guessing", "", Level.HIGH, when=Test("a", Op.EQUALS, ("b",)))


class Fleet:
    """A hub's enforcer with three hosts: two servers and a gateway."""

    def __init__(self, folder: Path) -> None:
        self.state, self.counters, self.chains = State(folder / "state.db"), Counters(), LoginChains(Counters())
        self.nudges = 0
        agents = Agents(self.state)
        for name, group in (("web1", ""), ("web2", ""), ("gw1", "gateways")):
            agents.add_token(JoinToken(name, name, group, 1, 1, START, START + HOUR))
            agents.join(Joining(name, name, name, name), enrolment=name, now=START)
        self.blocks = FleetBlocks(self.state)
        self.start()

    def start(self, rung: str = "enforce", canary_hosts: Sequence[str] = ("web2",), **settings: Any) -> None:
        """A hub that begins, with nothing in memory."""
        self.settings = FleetBlockSettings(**settings)
        self.enforcer = FleetEnforcer(
            self.state,
            [RULE, HOST_RULE],
            self.settings,
            clock=FakeClock(),
            counter=self.counters,
            nudge=self._nudge,
            addresses=self.chains.addresses,
            responding=RespondSettings(rungs={RULE.id: rung}, canary_hosts=tuple(canary_hosts)),
        )

    def _nudge(self) -> None:
        self.nudges += 1

    def decision(self, target: str, hosts: Sequence[str] = ("web1", "web2"), **changes: Any) -> Decision:
        made = Decision(
            id=f"{target}{hosts}",
            target=target_of(parse_network(target)),
            host_id="hub",
            owner=f"rule:{RULE.id}",
            reason=RULE.id,
            starts_at=START,
            expires_at=START + HOUR,
            evidence=tuple(f"{host}/journal/x:{at}" for at in range(9) for host in hosts),
        )
        return replace(made, **changes)

    def blocked(self, target: str, hosts: Sequence[str]) -> list[str]:
        """What is blocked on the fleet once a rule decided on this by records of these hosts."""
        self.enforcer.add([self.decision(target, hosts)], START)
        return sorted(one.target for one in self.blocks.in_force(START))

    def one(self, now: int = START) -> FleetBlock:
        """The only block that is in force."""
        (found,) = self.blocks.in_force(now)
        return found

    def answer(self, host: str, state: str, reason: str = "", at: int = START) -> None:
        """What a host made of the only block."""
        self.blocks.answered([HostAnswer(self.one().id, host, at, state, reason)])


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.state.close()


def test_records_of_one_host_block_nothing_and_those_of_two_or_a_gateway_do(fleet: Fleet) -> None:
    assert fleet.blocked(ATTACKER, ["web1"]) == []
    assert fleet.counters.value("fleet_blocks_refused", "too-few-hosts") == 1
    assert fleet.blocked(ATTACKER, ["web1", "web2"]) == [ATTACKER]
    assert fleet.blocked("203.0.113.91", ["gw1"]) == [ATTACKER, "203.0.113.91"]


@pytest.mark.parametrize("target", ["198.51.100.1", "198.51.100.0/24", "2001:db8::1", "2001:db8::/64"])
def test_no_records_get_a_host_of_the_fleet_blocked(fleet: Fleet, target: str) -> None:
    fleet.chains.has("gw1", "gw1", ["198.51.100.1", "2001:db8::1", "no address"], START)
    assert fleet.blocked(target, ["web1", "web2", "gw1"]) == []
    assert fleet.counters.value("fleet_blocks_refused", "of-the-fleet") == 1


def test_who_is_cut_off_protects_nothing_any_more(fleet: Fleet) -> None:
    fleet.chains.has("web2", "web2", [ATTACKER], START)
    assert fleet.blocked(ATTACKER, ["web1", "gw1"]) == []
    Agents(fleet.state).change("web2", AgentState.REVOKED, by="ops", note="", now=START)
    assert fleet.blocked(ATTACKER, ["gw1"]) == [ATTACKER]


# -------------------------------------------------------------------------------------------------- on the rung enforce


def test_a_decision_of_a_rule_of_hosts_or_of_a_person_is_none_of_the_fleets(fleet: Fleet) -> None:
    for owner in (f"rule:{HOST_RULE.id}", "operator:bob"):
        fleet.enforcer.add([fleet.decision(ATTACKER, owner=owner)], START)
    assert fleet.blocks.in_force(START) == []
    assert fleet.nudges == 0


def test_a_longer_lease_prolongs_the_block_that_is_there(fleet: Fleet) -> None:
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    before = fleet.one()
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    assert (fleet.one(), fleet.nudges) == (before, 1)
    fleet.enforcer.add([fleet.decision(ATTACKER, expires_at=START + 2 * HOUR)], START)
    assert fleet.one().id == before.id
    assert fleet.one().expires_at == START + 2 * HOUR


def test_what_a_crash_kept_from_being_told_is_told_at_the_next_start(fleet: Fleet) -> None:
    assert fleet.enforcer.sync([fleet.decision(ATTACKER)], START) == 0
    before = fleet.one()
    fleet.start()
    fleet.enforcer.sync([fleet.decision(ATTACKER)], START)
    assert fleet.one() == before


def test_what_a_person_lifted_stays_lifted_over_a_start(fleet: Fleet) -> None:
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    fleet.blocks.lift(ATTACKER, "operator:bob", START)
    fleet.start()
    fleet.enforcer.sync([fleet.decision(ATTACKER)], START)
    assert fleet.blocks.in_force(START) == []


def test_removing_lifts_what_rules_put_there_and_nothing_of_people(fleet: Fleet) -> None:
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    theirs = FleetBlock("p", "203.0.113.50", "operator:bob", "why", START, START + HOUR)
    fleet.blocks.add(theirs, START, 10)
    fleet.enforcer.remove([target_of(parse_network(one)) for one in (ATTACKER, "203.0.113.50", "203.0.113.51")])
    assert [one.owner for one in fleet.blocks.in_force(START)] == ["operator:bob"]
    assert fleet.nudges == 2


def test_so_many_a_minute_and_so_many_at_one_time(fleet: Fleet) -> None:
    fleet.start(per_minute=2, active=3)
    for last in range(4):
        fleet.enforcer.add([fleet.decision(f"203.0.113.{last}")], START)
    assert len(fleet.blocks.in_force(START)) == 2
    assert fleet.counters.value("fleet_blocks_refused", "fuse-blown") == 2
    later = START + 2 * MINUTE
    fleet.enforcer.add([fleet.decision("203.0.113.10")], later)
    with pytest.raises(EnforcementError, match="3 blocks of the fleet are active"):
        fleet.enforcer.add([fleet.decision("203.0.113.11")], later)


def test_the_first_hosts_are_chosen_by_number_where_a_rule_enforces(fleet: Fleet) -> None:
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    assert (fleet.one().state, fleet.one().canaries, fleet.one().trial) == (FleetBlockState.CANARY, ("gw1",), False)
    # One that refuses holds it: a rule that enforces has earned its trust, and a person looks.
    fleet.answer("gw1", "refused", "known-login")
    (changed,) = fleet.blocks.advance(START + 3 * MINUTE)
    assert changed.state is FleetBlockState.HELD


# --------------------------------------------------------------------------------------------------- on the rung canary


@pytest.mark.parametrize(
    ("named", "canaries"),
    [
        pytest.param(["web2"], ("web2",), id="a-name"),
        pytest.param(["web*"], ("web1", "web2"), id="a-pattern"),
        pytest.param(["*"], ("gw1", "web1", "web2"), id="all"),
    ],
)
def test_a_rule_on_the_rung_canary_begins_on_the_hosts_that_are_named(
    fleet: Fleet, named: list[str], canaries: tuple[str, ...]
) -> None:
    fleet.start("canary", named)
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    found = fleet.one()
    assert (found.state, found.canaries, found.trial) == (FleetBlockState.CANARY, canaries, True)
    assert fleet.blocks.advance(START + MINUTE) == []
    for host in canaries:
        fleet.answer(host, "enforced")
    (changed,) = fleet.blocks.advance(START + 2 * MINUTE)
    assert changed.state is FleetBlockState.EVERYWHERE


def test_without_a_canary_that_is_there_nothing_is_blocked(fleet: Fleet) -> None:
    fleet.start("canary", ["db*"])
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    assert fleet.blocks.in_force(START) == []
    assert fleet.counters.value("fleet_blocks_refused", "no-canary") == 1


@pytest.mark.parametrize("reason", ["known-login", "allowlisted", "hard-floor", "lifted-here"])
def test_it_is_returned_at_once_where_a_canary_knows_better(fleet: Fleet, reason: str) -> None:
    fleet.start("canary", ["web*"])
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    fleet.answer("web1", "enforced")
    fleet.answer("web2", "refused", reason)
    (changed,) = fleet.blocks.advance(START + SECOND)
    assert (changed.state, changed.ended_by) == (FleetBlockState.LIFTED, f"returned:web2:{reason}")
    assert fleet.blocks.in_force(START) == []
    # The rule blocks nothing on the fleet for a day, also after a start, and then it may again.
    fleet.start("canary", ["web*"])
    fleet.enforcer.sync([fleet.decision(ATTACKER), fleet.decision("203.0.113.77")], START + HOUR // 2)
    assert fleet.blocks.in_force(START) == []
    assert fleet.counters.value("fleet_blocks_refused", "returned") == 2
    later = START + DAY + MINUTE
    fresh = fleet.decision("203.0.113.78", starts_at=later, expires_at=later + HOUR)
    fleet.enforcer.add([fresh], later)
    assert [one.target for one in fleet.blocks.in_force(later)] == ["203.0.113.78"]


@pytest.mark.parametrize("reason", ["no-enforcer", "fuse-blown"])
def test_a_canary_that_cannot_is_no_harm_and_no_proof_either(fleet: Fleet, reason: str) -> None:
    fleet.start("canary", ["web2"])
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    fleet.answer("web2", "refused", reason)
    assert fleet.blocks.advance(START + SECOND) == []
    (changed,) = fleet.blocks.advance(START + 2 * MINUTE)
    assert changed.state is FleetBlockState.HELD


@pytest.mark.parametrize("another", ["", "web1"], ids=["nobody-answers", "one-that-is-no-canary-answers"])
def test_what_no_canary_tried_goes_to_no_others(fleet: Fleet, another: str) -> None:
    fleet.start("canary", ["web2"])
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    if another:
        fleet.answer(another, "enforced")
    (changed,) = fleet.blocks.advance(START + 2 * MINUTE)
    assert changed.state is FleetBlockState.HELD


def test_what_a_person_says_besides_is_not_returned_by_a_canary(fleet: Fleet) -> None:
    fleet.start("canary", ["web2"])
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    tried = fleet.one()
    said = replace(tried, id="of-a-person", owner="operator:alice", trial=False, expires_at=tried.expires_at - SECOND)
    fleet.blocks.add(said, START, 10)
    fleet.answer("web2", "refused", "known-login")
    assert fleet.blocks.advance(START + SECOND) == []
    (changed,) = fleet.blocks.advance(START + 2 * MINUTE)
    assert changed.state is FleetBlockState.HELD


def test_the_word_of_a_host_that_is_no_canary_takes_it_from_no_others(fleet: Fleet) -> None:
    fleet.start("canary", ["web2"])
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    fleet.answer("web1", "refused", "known-login")
    assert fleet.blocks.advance(START + SECOND) == []
    fleet.answer("web2", "enforced")
    fleet.blocks.advance(START + 2 * MINUTE)
    fleet.answer("web2", "refused", "lifted-here", START + 3 * MINUTE)
    assert fleet.blocks.advance(START + 4 * MINUTE) == []
    assert fleet.one().state is FleetBlockState.EVERYWHERE


def test_a_return_of_one_rule_holds_no_other_back(fleet: Fleet) -> None:
    fleet.start("canary", ["web2"])
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    fleet.answer("web2", "refused", "known-login")
    fleet.blocks.advance(START)
    assert fleet.blocks.returned(f"rule:{RULE.id}", START) is not None
    assert fleet.blocks.returned(f"rule:{RULE.id}", START + 1) is None
    assert fleet.blocks.returned("rule:another", START) is None


async def test_the_hub_says_that_a_block_was_returned_by_whom_and_why(fleet: Fleet) -> None:
    said: list[tuple[str, str, dict[str, object]]] = []
    news = SimpleNamespace(say=lambda action, words, about: said.append((action, words, dict(about))))
    anything: Any = None
    control = HubControl(
        HubSettings(),
        fleet.state,
        anything,
        anything,
        anything,
        cast(Any, news),
        clock=FakeClock(),
        counter=fleet.counters,
    )
    fleet.start("canary", ["web2"])
    fleet.enforcer.add([fleet.decision(ATTACKER)], START)
    control._advance()
    assert said == []
    block = fleet.one()
    fleet.answer("web2", "refused", "known-login")
    control._advance()
    ((action, words, about),) = said
    assert action == "block-returned"
    assert words == f"block of {ATTACKER} by {RULE.id} was returned: known-login on web2"
    assert about == {"decision": block.id, "target": ATTACKER, "reason": "known-login"}
    assert fleet.counters.value("fleet_blocks", "returned") == 1
