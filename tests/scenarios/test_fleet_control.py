"""Rules, policy and blocks from a hub to its agents, with a real broker: staged, returned, refused, gone on without it.
Counterpart: src/vedette/app/{hub_control,agent_control,bundling,agent_blocks}.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.parts.fleet import PATIENCE, FleetAgent, FleetHub
from tests.scenarios.parts.netns import NetLab
from tests.scenarios.parts.processes import PartError, short_folder, wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

RULE = """
title: The word {word} was said
id: test-{word}
status: test
level: medium
logsource: {{product: linux}}
detection:
  said: [{word}]
  condition: said
vedette:
  advice: It is a test.
  cases: []
"""


class Control:
    """A hub and the agents `web` and `db`; files of rules beside it."""

    def __init__(self, lab: NetLab, folder: Path) -> None:
        namespace = lab.namespace()
        self.folder = folder
        self.hub = FleetHub(namespace, folder / "hub")
        token = self.hub.token(2)
        self.hub.start()
        self.agents = {name: FleetAgent(namespace, folder / name) for name in ("web", "db")}
        for name, agent in self.agents.items():
            agent.enrol(token, name)
            agent.start()

    def close(self) -> None:
        for one in (*self.agents.values(), self.hub):
            one.close()

    def build(self, word: str, rule: str = RULE) -> int:
        """A bundle with a rule about `word`; its number."""
        rules = self.folder / f"{word}.yml"
        rules.write_text(rule.format(word=word))
        policy = self.folder / f"policy-{word}.yml"
        policy.write_text(json.dumps({"version": 1, "rules": {"paths": [str(rules)]}}))
        made = self.hub.command("fleet", "bundle", "build", "--policy", str(policy), "--output", "json")
        return int(json.loads(made)["bundle"])

    def bundle(self, *words: str) -> str:
        return self.hub.command("fleet", "bundle", *words)

    def state(self, number: int) -> str:
        lines = self.bundle("list", "--output", "json").splitlines()
        return {one["bundle"]: one["state"] for one in map(json.loads, lines)}[number]

    def wait_for_bundle(self, name: str, number: int) -> None:
        agent = self.agents[name]
        wait_until(
            f"{name} runs by bundle {number}\n{agent.log}\n{self.hub.log}", lambda: in_force(agent) == number, PATIENCE
        )

    def findings(self, rule_id: str) -> list[dict[str, Any]]:
        found = self.hub.query("select body from findings where rule_id = ?", [rule_id])
        return [json.loads(row[0]) for row in found]


def in_force(agent: FleetAgent) -> int:
    place = agent.data / "bundle.json"
    return int(json.loads(place.read_text())["number"]) if place.exists() else 0


def says(agent: FleetAgent, word: str) -> None:
    with agent.app.open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat()} web app[1]: {word}\n")


@pytest.fixture(scope="module")
def control(namespaces: None) -> Iterator[Control]:
    with short_folder() as folder:
        lab = NetLab(folder)
        try:
            made = Control(lab, folder)
            try:
                yield made
            finally:
                made.close()
        finally:
            lab.close()


def test_a_bundle_is_staged_then_promoted_and_its_findings_name_it(control: Control):
    number = control.build("xylophone")
    control.bundle("stage", str(number), "--host", "web")
    control.wait_for_bundle("web", number)
    assert in_force(control.agents["db"]) == 0
    control.bundle("promote", str(number))
    control.wait_for_bundle("db", number)
    life = control.agents["db"]
    wait_until("it runs again", lambda: life.life.count("configuration reloaded") == 1, PATIENCE)
    says(life, "xylophone")
    wait_until(f"a finding\n{life.log}", lambda: bool(control.findings("test-xylophone")), PATIENCE)
    (found,) = control.findings("test-xylophone")
    assert (found["bundle"], found["host_id"]) == (number, life.host_id)


def test_a_rule_that_does_not_load_there_is_taken_back(control: Control):
    before = in_force(control.agents["web"])
    number = control.build("zither")
    # Loads on the hub, and not where a rule of the same id stands already.
    own = control.folder / "own.yml"
    own.write_text(RULE.format(word="zither"))
    web = control.agents["web"]
    web.configure({"sources": {"file": [{"paths": [web.auth, web.app]}]}, "rules": {"paths": [str(own)]}})
    web.stop()
    web.start()
    control.bundle("stage", str(number), "--host", "web")
    wait_until(f"returned\n{web.log}\n{control.hub.log}", lambda: control.state(number) == "returned", PATIENCE)
    assert in_force(web) == before
    alert = control.hub.wait_for_alert("fleet-bundle-ended")
    assert "does-not-load" in control.bundle("show", str(number))
    assert alert["level"] == "high"


def test_a_bundle_holds_with_the_hub_away_and_returns_by_order(control: Control):
    number = control.build("bassoon")
    control.bundle("promote", str(number), "--untried")
    control.wait_for_bundle("db", number)
    db = control.agents["db"]
    control.hub.stop()
    db.stop()
    db.start()
    assert in_force(db) == number
    control.hub.start()
    control.bundle("return", "--note", "a test")
    wait_until(f"the one before\n{db.log}", lambda: 0 < in_force(db) < number, PATIENCE)
    assert control.state(number) == "returned"


def test_witnesses_cosign_the_head(control: Control):
    wait_until(
        f"two witnesses\n{control.hub.log}",
        lambda: len(control.hub.command("fleet", "witnesses", "--output", "json").splitlines()) == 2,
        PATIENCE,
    )
    found = [json.loads(one) for one in control.hub.command("fleet", "witnesses", "--output", "json").splitlines()]
    assert {one["host.name"] for one in found} == {"web", "db"}
    assert all(one["size"] > 0 for one in found)


def states(control: Control) -> dict[str, tuple[str, str | None]]:
    """Host -> state and reason, of the only block there is."""
    found = [
        json.loads(one) for one in control.hub.command("block", "list", "--fleet", "--output", "json").splitlines()
    ]
    assert len(found) <= 1
    return {host["host.name"]: (host["state"], host["reason"]) for one in found for host in one["hosts"]}


def blocked(agent: FleetAgent, target: str) -> bool:
    found = agent.query("select state from decisions where target_value = ?", [target])
    return bool(found) and found[-1][0] == "active"


def wait_for_states(control: Control, wanted: dict[str, tuple[str, str | None]]) -> None:
    seen: list[Any] = []

    def there() -> bool:
        seen[:] = [states(control)]
        return seen[0] == wanted

    logs = "".join(one.log for one in (*control.agents.values(), control.hub))
    try:
        wait_until("what each host made of it", there, PATIENCE)
    except PartError:
        raise AssertionError(f"{seen}\n{logs}") from None


def test_a_block_goes_to_one_host_first_then_to_all_and_an_allowlist_wins(control: Control):
    control.agents["db"].command("block", "allow", "198.51.100.0/24", "--comment", "a customer")
    control.hub.command("block", "add", "203.0.113.50", "--fleet", "--canary", "1")
    first = min(agent.host_id for agent in control.agents.values())
    on = {name: agent for name, agent in control.agents.items() if agent.host_id == first}
    ((name, canary),) = on.items()
    wait_for_states(control, {name: ("enforced", None)})
    other = next(agent for agent in control.agents.values() if agent is not canary)
    assert blocked(canary, "203.0.113.50")
    assert not blocked(other, "203.0.113.50")
    control.hub.command("block", "add", "203.0.113.50", "--fleet", "--everywhere")
    wait_for_states(control, {"web": ("enforced", None), "db": ("enforced", None)})
    control.hub.command("block", "remove", "203.0.113.50", "--fleet")
    wait_until("lifted", lambda: not any(blocked(one, "203.0.113.50") for one in control.agents.values()), PATIENCE)
    control.hub.command("block", "add", "198.51.100.7", "--fleet", "--everywhere")
    wait_for_states(control, {"web": ("enforced", None), "db": ("refused", "allowlisted")})
    control.hub.command("block", "remove", "--all", "--fleet")


def test_who_was_away_learns_of_a_block_and_keeps_it_without_the_hub(control: Control):
    db = control.agents["db"]
    db.stop()
    control.hub.command("block", "add", "203.0.113.60", "--fleet", "--everywhere", "--for", "1h")
    db.start()
    wait_until(f"blocked\n{db.log}", lambda: blocked(db, "203.0.113.60"), PATIENCE)
    control.hub.stop()
    db.stop()
    db.start()
    assert blocked(db, "203.0.113.60")
    control.hub.start()
    control.hub.command("block", "remove", "203.0.113.60", "--fleet")
    wait_until(f"lifted\n{db.log}", lambda: not blocked(db, "203.0.113.60"), PATIENCE)
