"""What rules of the fleet may have agents block: on evidence of more than one host, and never one of our own.
Counterpart: src/vedette/app/fleet_blocks.py; tests/scenarios/test_fleet_control.py has the agents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vedette.app.counters import Counters
from vedette.app.fleet_blocks import FleetEnforcer
from vedette.fleet.hub_settings import FleetBlockSettings
from vedette.fleet.login_chains import LoginChains
from vedette.model.clock import HOUR
from vedette.model.decisions import Decision
from vedette.model.fleet import AgentState, Joining, JoinToken
from vedette.model.levels import Level
from vedette.model.rules import Op, Rule, Scope, Test
from vedette.respond.active import target_of
from vedette.store.agents import Agents
from vedette.store.fleet_blocks import FleetBlocks
from vedette.store.state import State
from vedette.testing.clock import START, FakeClock
from vedette.text.addresses import parse_network

ATTACKER = "203.0.113.9"
RULE = Rule("fleet-spraying", "", Level.HIGH, when=Test("a", Op.EQUALS, ("b",)), scope=Scope.FLEET)


class Fleet:
    """A hub's enforcer with three hosts: two servers and a gateway."""

    def __init__(self, folder: Path) -> None:
        self.state, self.counters, self.chains = State(folder / "state.db"), Counters(), LoginChains(Counters())
        agents = Agents(self.state)
        for name, group in (("web1", ""), ("web2", ""), ("gw1", "gateways")):
            agents.add_token(JoinToken(name, name, group, 1, 1, START, START + HOUR))
            agents.join(Joining(name, name, name, name), enrolment=name, now=START)
        self.enforcer = FleetEnforcer(
            self.state,
            [RULE],
            FleetBlockSettings(),
            clock=FakeClock(),
            counter=self.counters,
            nudge=lambda: None,
            addresses=self.chains.addresses,
        )

    def blocked(self, target: str, hosts: Sequence[str]) -> list[str]:
        """What is blocked on the fleet once a rule decided on this by records of these hosts."""
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
        self.enforcer.add([made], START)
        return sorted(one.target for one in FleetBlocks(self.state).in_force(START))


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
