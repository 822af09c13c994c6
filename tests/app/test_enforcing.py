"""What a rule of the fleet tries on some hosts first is not enforced by the hub on itself meanwhile.
Counterpart: vedette.app.enforcing and the rung canary of vedette.respond.policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.respond.parts import NOW, Bench, finding

from vedette.app.counters import Counters
from vedette.app.enforcing import FLEET, Enforcing
from vedette.app.fleet_blocks import FleetEnforcer
from vedette.model.decisions import DecisionState
from vedette.model.levels import Level
from vedette.model.rules import Response, Rule, Scope
from vedette.respond.policy import Outcome, Policy
from vedette.store.state import State

OF_HOST = Rule("of-host", "", Level.HIGH, response=Response())
OF_FLEET = Rule("of-fleet", "", Level.HIGH, response=Response(), scope=Scope.FLEET)
RUNGS = {"of-host": "canary", "of-fleet": "canary"}


def bench(*canary_hosts: str, host_name: str = "web01") -> Bench:
    made = Bench(rules=[OF_HOST, OF_FLEET], rungs=RUNGS, canary_hosts=canary_hosts)
    made.policy = Policy(made.settings, made.rules, made.guard, "h", host_name=host_name)
    return made


@pytest.mark.parametrize(
    ("named", "state"),
    [
        pytest.param("web01", DecisionState.ACTIVE, id="this-host-by-name"),
        pytest.param("h", DecisionState.ACTIVE, id="this-host-by-id"),
        pytest.param("web02", DecisionState.SIMULATED, id="another"),
    ],
)
def test_a_rule_on_the_rung_canary_enforces_on_named_hosts_and_simulates_on_others(named: str, state: DecisionState):
    made = bench(named)
    done = made.decide(finding(rule="of-host"))
    (decision,) = made.store.decisions.values()
    assert decision.state is state
    assert bool(done.enforce) is (state is DecisionState.ACTIVE)
    assert [one.reason.value for one in done.refusals] == ([] if done.enforce else ["rule-simulates"])


def test_a_rule_of_the_fleet_decides_wherever_it_is_judged_and_agents_try_it():
    made = bench("web02", host_name="hub")
    assert made.policy.staged == {"rule:of-fleet"}
    assert [one.owner for one in made.decide(finding(rule="of-fleet")).enforce] == ["rule:of-fleet"]


class Recording:
    def __init__(self, name: str) -> None:
        self.name, self.held = name, list[str]()

    def add(self, decisions: Any, now: int) -> None:
        self.held += [one.owner for one in decisions]

    def remove(self, targets: Any) -> None: ...

    def sync(self, active: Any, now: int) -> int:
        self.held = [one.owner for one in active]
        return 0


def test_the_hub_itself_waits_for_what_its_agents_try(tmp_path: Path):
    assert FleetEnforcer.name == FLEET
    made = bench("web01")
    nft, fleet = Recording("nftables"), Recording(FLEET)
    state = State(tmp_path / "state.db")
    enforcing = Enforcing([nft, fleet], state, made.policy, Counters(), say=lambda *_, **__: None)
    decided = made.decide(finding(rule="of-fleet"), finding("198.51.100.9", rule="of-host"))
    enforcing.carry_out(decided, NOW)
    assert nft.held == ["rule:of-host"]
    assert sorted(fleet.held) == ["rule:of-fleet", "rule:of-host"]
    with state.transaction() as tx:
        for one in decided.enforce:
            tx.save_decision(one)
    nft.held, fleet.held = [], []
    enforcing.sync(NOW)
    assert nft.held == ["rule:of-host"]
    assert sorted(fleet.held) == ["rule:of-fleet", "rule:of-host"]
    enforcing.carry_out(Outcome(enforce=[one for one in decided.enforce if one.owner == "rule:of-fleet"]), NOW)
    assert nft.held == ["rule:of-host"]
    state.close()
