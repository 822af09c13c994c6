"""Proves inventories joined: a real Chef server, an Ansible inventory and a firewall's ruleset behind one policy file.
Counterpart: parts/chef.py; app.inventories reads them, and none of it needs root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.parts.chef import ChefServer

from vedette.app.inventories import Gathered, gather
from vedette.model.clock import HOUR, SystemClock
from vedette.model.levels import Level
from vedette.model.ports import Protocol
from vedette.sources.ports.judge import exit_code
from vedette.testing.clock import FakeClock

WEB = {"443/tcp": {"from": "world", "must_answer": True}, "9100/tcp": "office"}


@pytest.fixture
def chef(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChefServer]:
    with ChefServer(bits=1024) as server:
        monkeypatch.setenv("CHEF_KEY", server.key_pem)
        server.set_role("web", default_attributes=ports(WEB))
        server.set_role("bastion", default_attributes={"vedette": {"gateway": True, "ports": {"22/tcp": "world"}}})
        server.set_item("servers", "web1", roles=["web"], addresses=["192.0.2.10"])
        server.set_item("servers", "gw1", roles=["bastion"], addresses=["192.0.2.1"])
        server.set_node("web1", run_list=["role[web]"], automatic={"ipaddress": "192.0.2.10"})
        server.set_node("gw1", run_list=["role[bastion]"], automatic={"ipaddress": "192.0.2.1"})
        yield server


@pytest.fixture
def policy(chef: ChefServer, tmp_path: Path) -> Path:
    (tmp_path / "hosts.ini").write_text(
        "[web]\nweb1 ansible_host=192.0.2.10\n[db]\ndb1 ansible_host=192.0.2.20\n"
        "[db:vars]\nvedette_ports={22/tcp: gateways, 5432/tcp: office}\n"
    )
    (tmp_path / "web1.rules").write_text(
        "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
        "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT\n"
        "-A INPUT -s 198.51.100.0/25 -p tcp -m tcp --dport 9100 -j ACCEPT\nCOMMIT\n"
    )
    file = tmp_path / "ports.yml"
    file.write_text(
        "version: 1\n"
        "own_networks: [192.0.2.0/24]\n"
        "networks: {office: [198.51.100.0/24]}\n"
        "only_on_gateways: [22/tcp]\n"
        "inventories:\n"
        f"  - name: chef\n    chef: {{url: '{chef.url}', plain_http: true, user: {chef.user}, key: {{env: CHEF_KEY}}, "
        "hosts_bag: {bag: servers}, nodes: each, attempts: 1}\n"
        "  - {name: site, ansible: {inventory: hosts.ini}}\n"
        "  - {name: fw-web1, firewall: {host: web1, format: iptables, file: web1.rules}}\n"
    )
    return file


def ports(said: dict[str, Any]) -> dict[str, Any]:
    return {"vedette": {"ports": said}}


def told(gathered: Gathered) -> list[tuple[str, str, int]]:
    return [(one.kind.value, one.host, one.port) for one in gathered.drifts]


def sources(gathered: Gathered, host: str, port: int) -> set[str]:
    found = gathered.policy.host(host)
    assert found is not None
    return {source for one in found.covering(port, Protocol.TCP) for source in one.sources}


def test_three_inventories_that_agree_are_one_policy(policy: Path):
    gathered = gather(policy, SystemClock())
    assert told(gathered) == []
    assert [(one.name, one.addresses) for one in gathered.policy.hosts] == [
        ("gw1", ("192.0.2.1",)),
        ("web1", ("192.0.2.10",)),
        ("db1", ("192.0.2.20",)),
    ]
    assert sources(gathered, "web1", 443) == {"world"}
    database = gathered.policy.host("db1")
    assert database is not None
    assert database.gateways == ("gw1",)


def test_a_node_that_widens_its_own_policy_is_high_and_no_pass(chef: ChefServer, policy: Path, tmp_path: Path):
    keep = tmp_path / "keep"
    assert told(gather(policy, SystemClock(), keep)) == []
    chef.set_node("web1", run_list=["role[web]", "role[bastion]"], normal=ports({"8080/tcp": "world"}))
    for _ in range(2):
        gathered = gather(policy, SystemClock(), keep)
        assert {one.kind.value for one in gathered.drifts} == {"policy-widened"}
        assert {one.level for one in gathered.drifts} == {Level.HIGH}
        assert {one.port for one in gathered.drifts} == {0, 22, 8080}
        assert exit_code(gathered.drifts) == 1
        assert sources(gathered, "web1", 8080) == sources(gathered, "web1", 22) == set()
        said = " ".join(one.advice for one in gathered.drifts)
        assert "chef:node[web1] normal.vedette.ports.8080/tcp" in said
        assert "has the roles bastion beside web and is a gateway" in said


def test_what_an_operator_widens_is_told_once_with_old_new_and_origin(chef: ChefServer, policy: Path, tmp_path: Path):
    keep = tmp_path / "keep"
    gather(policy, SystemClock(), keep)
    chef.set_role("web", default_attributes=ports({**WEB, "9100/tcp": "world"}))
    (drift,) = gather(policy, SystemClock(), keep).drifts
    assert (drift.kind.value, drift.host, drift.port) == ("policy-widened", "web1", 9100)
    where = "chef:role[web] default_attributes.vedette.ports.9100/tcp"
    assert f"may be reached by world ({where}), it was office ({where})" in drift.advice
    assert told(gather(policy, SystemClock(), keep)) == []


def test_inventories_that_contradict_each_other_let_in_whom_both_let_in(chef: ChefServer, policy: Path, tmp_path: Path):
    with (tmp_path / "hosts.ini").open("a") as more:
        more.write("[web:vars]\nvedette_ports={443/tcp: office, 80/tcp: world}\n")
    gathered = gather(policy, SystemClock())
    assert sources(gathered, "web1", 443) == {"office"}
    assert sources(gathered, "web1", 80) == {"world"}
    # The firewall and the node were true to Chef.
    assert told(gathered) == [("inventories-disagree", "web1", 443), ("policy-widened", "web1", 443)]
    advice = gathered.drifts[0].advice
    assert "by chef: world (chef:role[web] default_attributes.vedette.ports.443/tcp)" in advice
    assert f"by site: office ({tmp_path}/hosts.ini:8)" in advice


def test_a_node_that_nobody_expects_is_said(chef: ChefServer, policy: Path):
    chef.set_node("stray", run_list=["role[web]"], automatic={"ipaddress": "192.0.2.66"})
    gathered = gather(policy, SystemClock())
    assert told(gathered) == [("inventories-disagree", "stray", 0)]
    assert gathered.policy.host("192.0.2.66") is None


def test_a_server_that_is_down_keeps_the_last_known_policy(chef: ChefServer, policy: Path, tmp_path: Path):
    clock, keep = FakeClock(SystemClock().now()), tmp_path / "keep"
    before = gather(policy, clock, keep)
    chef.stop()
    clock.advance(HOUR)
    after = gather(policy, clock, keep)
    assert after.policy == before.policy
    assert told(after) == []
    assert after.inventories[0].stale
    clock.advance(1)
    assert told(gather(policy, clock, keep)) == [("could-not-tell-too-long", "policy", 0)]
    never = gather(policy, clock, tmp_path / "other")
    assert never.policy.hosts == ()
    assert exit_code(never.drifts) == 2
