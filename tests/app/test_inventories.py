from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vedette.app.inventories import Gathered, gather
from vedette.inventory import kinds
from vedette.inventory.kinds import Kind
from vedette.model.clock import HOUR, MINUTE, Clock
from vedette.model.errors import ConfigError, InventoryError, Location, StateError
from vedette.model.levels import Level
from vedette.model.ports import (
    WORLD,
    DriftKind,
    Expectations,
    HostExpectation,
    InventoryProblem,
    Opening,
    PortRange,
    Protocol,
    SeenWhy,
)
from vedette.model.reasons import InventoryReason
from vedette.sources.ports.judge import exit_code
from vedette.testing.clock import FakeClock

FILE = """\
version: 1
own_networks: [192.0.2.0/24]
networks: {office: [198.51.100.0/24]}
hosts:
  db1: {addresses: [192.0.2.20], ports: {5432/tcp: office}}
inventories:
  - name: shop
    stale_after: 30m
    chef: {url: "https://chef.example.org/organizations/shop", user: vedette, key: {env: CHEF_KEY}}
"""


class Server:
    """A Chef server as far as `gather` knows one: says something, or is down."""

    def __init__(self) -> None:
        self.ports = [443]
        self.claims: list[int] = []
        self.problems: tuple[InventoryProblem, ...] = ()
        self.in_part: tuple[str, ...] = ()
        self.nodes_unread = False
        self.down = False
        self.asked = 0
        self.words: Any = None

    def read(self, words: Any, name: str, clock: Clock) -> Expectations:
        self.asked += 1
        self.words = words
        if self.down:
            raise InventoryError(InventoryReason.UNREACHABLE, "no answer", location=Location(words.url))
        web = HostExpectation("web1", ("192.0.2.10",), openings=tuple(map(opening, self.ports)))
        claim = replace(web, openings=tuple(map(opening, self.claims)))
        problems = self.problems
        if not problems and (self.in_part or self.nodes_unread):
            problems = (InventoryProblem(InventoryReason.WRONG_WORDS, "a node cannot be read"),)
        return Expectations(
            name,
            (web,),
            claims=() if self.nodes_unread else (claim,),
            read_at=clock.now(),
            problems=problems,
            claims_complete=not self.in_part and not self.nodes_unread,
            claims_in_part=self.in_part,
        )


def opening(port: int) -> Opening:
    return Opening(PortRange(port, port), Protocol.TCP, (WORLD,), origin=Location("shop:role[web]"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    chef = kinds.KINDS["chef"]
    patched = {**kinds.KINDS, "chef": Kind(chef.words, made.read, chef.paths, policy=True, of_nodes=True)}
    monkeypatch.setattr("vedette.app.inventories.KINDS", patched)
    yield made
    assert made.asked


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ports.yml"
    path.write_text(FILE)
    return path


def kinds_of(gathered: Gathered) -> list[tuple[str, str, int]]:
    return [(one.kind.value, one.host, one.port) for one in gathered.drifts]


def names(gathered: Gathered) -> list[str]:
    return [one.name for one in gathered.policy.hosts]


def test_the_file_and_its_inventories_are_one_policy(file: Path, server: Server):
    clock = FakeClock()
    gathered = gather(file, clock)
    assert names(gathered) == ["db1", "web1"]
    assert gathered.drifts == ()
    (heard,) = gathered.inventories
    assert (heard.name, heard.kind, heard.read_at, heard.stale) == ("shop", "chef", clock.now(), "")


def test_what_was_left_out_of_an_inventory_is_said_and_no_drift_from_policy(file: Path, server: Server):
    place = Location("shop:node[web1]")
    problem = InventoryProblem(InventoryReason.UNKNOWN_NAME, "has a role that does not exist", place, 2)
    server.problems = (problem, *(replace(problem, message=f"x{at}", times=1) for at in range(5)))
    gathered = gather(file, FakeClock())
    assert gathered.inventories[0].problems == server.problems
    (drift,) = gathered.drifts
    assert (drift.host, drift.address, drift.level) == ("policy", "shop", Level.INFORMATIONAL)
    assert "left out: 7 (unknown-name): shop:node[web1]: has a role that does not exist (2 times); " in drift.advice
    assert drift.advice.endswith("; and more")
    assert exit_code(gathered.drifts) == 0


def test_what_is_down_is_what_it_was_and_alarms_when_that_is_too_old(file: Path, server: Server, tmp_path: Path):
    clock, keep = FakeClock(), tmp_path / "keep"
    first = gather(file, clock, keep)
    server.down = True
    clock.advance(30 * MINUTE)
    later = gather(file, clock, keep)
    assert later.policy == first.policy
    assert later.drifts == ()
    assert later.inventories[0].read_at == first.inventories[0].read_at
    assert "https://chef.example.org/organizations/shop: no answer" in later.inventories[0].stale
    clock.advance(MINUTE)
    late = gather(file, clock, keep)
    assert late.policy == first.policy
    (drift,) = late.drifts
    assert (drift.kind, drift.host, drift.address) == (DriftKind.COULD_NOT_TELL_TOO_LONG, "policy", "shop")
    assert "what it said 31m ago" in drift.advice
    assert exit_code(late.drifts) == 2
    server.down = False
    assert gather(file, clock, keep).drifts == ()


def test_what_was_never_read_is_no_policy_and_no_pass(file: Path, server: Server, tmp_path: Path):
    server.down = True
    for keep in (None, tmp_path / "keep"):
        gathered = gather(file, FakeClock(), keep)
        assert gathered.policy.hosts == ()
        (drift,) = gathered.drifts
        assert (drift.kind, drift.address, drift.why) == (DriftKind.COULD_NOT_TELL, "shop", SeenWhy.NOT_PROBED)
        assert "was never read, so nothing was looked at" in drift.advice
        assert exit_code(gathered.drifts) == 2
        assert gathered.inventories[0].read_at == 0
    # Nor is that what the next one is compared with: what is read first is not new.
    server.down = False
    assert gather(file, FakeClock(), tmp_path / "keep").drifts == ()


def test_inventories_that_name_nobody_are_no_pass(tmp_path: Path):
    (tmp_path / "hosts.ini").write_text("# web1\n[db:children]\n[web]\n")
    file = tmp_path / "ports.yml"
    file.write_text(
        "version: 1\nown_networks: [192.0.2.0/24]\ninventories: [{name: site, ansible: {inventory: hosts.ini}}]\n"
    )
    gathered = gather(file, FakeClock(), tmp_path / "keep")
    assert kinds_of(gathered) == [("could-not-tell", "policy", 0)]
    assert exit_code(gathered.drifts) == 2


def test_every_widening_is_said_once(file: Path, server: Server, tmp_path: Path):
    clock, keep = FakeClock(), tmp_path / "keep"
    gather(file, clock, keep)
    server.ports = [443, 8080]
    assert kinds_of(gather(file, clock, keep)) == [("policy-widened", "web1", 8080)]
    assert gather(file, clock, keep).drifts == ()
    server.ports = [443]
    assert gather(file, clock, keep).drifts == ()
    file.write_text(FILE.replace("5432/tcp: office", "5432/tcp: world"))
    (drift,) = gather(file, clock, keep).drifts
    assert (drift.kind, drift.port, exit_code([drift])) == (DriftKind.POLICY_WIDENED, 5432, 1)
    assert f"by world ({file}:5:" in drift.advice


def test_who_has_not_said_it_yet_is_told_again(file: Path, server: Server, tmp_path: Path):
    clock, keep = FakeClock(), tmp_path / "keep"
    gather(file, clock, keep)
    server.ports = [443, 8080]
    told = gather(file, clock, keep, settle=False)
    assert told.drifts == gather(file, clock, keep, settle=False).drifts != ()
    told.settle()
    assert gather(file, clock, keep, settle=False).drifts == ()


def test_a_widening_while_the_server_was_down_is_not_missed(file: Path, server: Server, tmp_path: Path):
    clock, keep = FakeClock(), tmp_path / "keep"
    gather(file, clock, keep)
    server.down = True
    gather(file, clock, keep)
    server.down, server.ports = False, [443, 22]
    assert kinds_of(gather(file, clock, keep)) == [("policy-widened", "web1", 22)]


def test_a_node_that_widens_its_own_policy_is_told_every_time(file: Path, server: Server, tmp_path: Path):
    server.claims = [443, 8080]
    for _ in range(2):
        gathered = gather(file, FakeClock(), tmp_path / "keep")
        assert kinds_of(gathered) == [("policy-widened", "web1", 8080)]
        assert exit_code(gathered.drifts) == 1
        web = gathered.policy.host("web1")
        assert web is not None
        assert web.covering(8080, Protocol.TCP) == ()


def test_what_is_kept_is_ours_alone_and_says_what_it_is(file: Path, server: Server, tmp_path: Path):
    keep = tmp_path / "a" / "keep"
    gather(file, FakeClock(), keep)
    assert keep.stat().st_mode & 0o777 == 0o700
    kept = sorted(keep.iterdir())
    assert [one.name.partition("-")[2] for one in kept] == ["chef-shop", "policy"]
    assert {one.stat().st_mode & 0o777 for one in kept} == {0o600}
    assert [one.read_bytes().split(b"\n")[0] for one in kept] == [b"vedette-inventory 1", b"vedette-port-policy 1"]
    keep.chmod(0o755)
    with pytest.raises(StateError, match="is not ours alone"):
        gather(file, FakeClock(), keep)


def test_what_a_newer_program_kept_is_refused_and_what_is_damaged_is_said(file: Path, server: Server, tmp_path: Path):
    keep = tmp_path / "keep"
    gather(file, FakeClock(), keep)
    inventory, policy = sorted(keep.iterdir())
    for broken in (
        b"",
        b"vedette-port-policy 1\n{",
        b"vedette-port-policy x\n",
        b"vedette-port-policy %s\n" % (b"9" * 5000),
        b"else 1\n{}",
    ):
        policy.write_bytes(broken)
        (drift,) = gather(file, FakeClock(), keep).drifts
        assert drift.kind is DriftKind.COULD_NOT_TELL
        assert "is damaged: whether policy lets in more" in drift.advice
    assert gather(file, FakeClock(), keep).drifts == ()
    policy.write_bytes(b"vedette-port-policy 2\n{}")
    with pytest.raises(StateError, match="is of version 2, this program knows 1"):
        gather(file, FakeClock(), keep)
    policy.unlink()
    inventory.write_bytes(inventory.read_bytes()[:-5])
    server.down = True
    (drift,) = gather(file, FakeClock(), keep).drifts
    assert "no answer; what it said before" in drift.advice


def test_a_kept_file_of_version_1_reads_as_it_did(file: Path, server: Server, tmp_path: Path):
    """A sample as version 1 writes it."""
    keep = tmp_path / "keep"
    gather(file, FakeClock(), keep)
    inventory, _ = sorted(keep.iterdir())
    inventory.write_bytes(
        b"vedette-inventory 1\n"
        b'{"inventory":"shop","hosts":[{"name":"web9","addresses":["192.0.2.9"],"names":[],"roles":["web"],"groups":[],'
        b'"openings":[{"ports":{"first":443,"last":443},"protocol":"tcp","sources":["world","lab"],"must_answer":true,'
        b'"owner":"shop","reason":"","until":1795478400000000,"level":4,"origin":{"file":"shop:role[web]","line":0,'
        b'"column":0}}],"gateway":true,"gateways":[],"origin":{"file":"shop","line":0,"column":0}}],'
        b'"networks":[{"name":"lab","prefixes":["10.0.0.0/8","2001:db8::/32"],"origin":{"file":"","line":0,"column":0}}],'
        b'"claims":[],"read_at":1795478400000000,"stale":"","problems":[{"reason":"unknown-name","message":"x",'
        b'"location":{"file":"","line":0,"column":0},"times":2}],"claims_complete":true}'
    )
    server.down = True
    gathered = gather(file, FakeClock(1_795_478_400_000_000 - HOUR), keep)
    web = gathered.policy.host("web9")
    assert web is not None
    assert (web.gateway, web.roles, web.openings[0].until) == (True, ("web",), 1_795_478_400_000_000)
    assert [str(one) for one in gathered.policy.networks["lab"].prefixes] == ["10.0.0.0/8", "2001:db8::/32"]
    assert gathered.inventories[0].problems[0].times == 2


def test_files_are_named_from_where_the_policy_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")
    (tmp_path / "hosts.ini").write_text("web1 ansible_host=192.0.2.10 vedette_ports='{443/tcp: world}'\n")
    cidr = [{"CidrIp": "0.0.0.0/0"}]
    allowed = [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": cidr} for port in (443, 22)]
    groups = {"SecurityGroups": [{"GroupId": "sg-1", "IpPermissions": allowed}]}
    (tmp_path / "sg.json").write_text(json.dumps(groups))
    (tmp_path / "rules.v4").write_text(
        "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
        "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT\nCOMMIT\n"
    )
    file = tmp_path / "ports.yml"
    file.write_text(
        "version: 1\nown_networks: [192.0.2.0/24]\ninventories:\n"
        "  - {name: site, ansible: {inventory: hosts.ini}}\n"
        "  - {name: cloud, aws: {security_groups: sg.json, hosts: {web1: [sg-1]}}}\n"
        "  - {name: fw, firewall: {host: web1, file: rules.v4, format: iptables}}\n"
    )
    gathered = gather(file, FakeClock())
    assert [(one.name, one.stale) for one in gathered.inventories] == [("site", ""), ("cloud", ""), ("fw", "")]
    assert names(gathered) == ["web1"]
    assert kinds_of(gathered) == [("inventories-disagree", "web1", 22)]
    (tmp_path / "rules.v4").unlink()
    without = gather(file, FakeClock())
    assert names(without) == ["web1"]
    assert ("could-not-tell", "policy", 0) in kinds_of(without)
    (tmp_path / "hosts.ini").unlink()
    assert names(gather(file, FakeClock())) == []


def test_what_is_wrong_with_the_file_itself_is_an_error(tmp_path: Path):
    file = tmp_path / "ports.yml"
    with pytest.raises(ConfigError, match="cannot be read"):
        gather(file, FakeClock())
    file.write_text(FILE.replace("own_networks", "own_netwroks"))
    with pytest.raises(ConfigError, match=r"ports.yml:\d+:\d+"):
        gather(file, FakeClock(), tmp_path / "keep")


def test_a_widening_is_not_over_because_its_node_cannot_be_read(file: Path, server: Server, tmp_path: Path):
    keep = tmp_path / "keep"
    server.claims = [22]
    told = kinds_of(gather(file, FakeClock(), keep))
    assert told == [("policy-widened", "web1", 22)]
    # The node writes nonsense, the server shows it to nobody, then the server is down.
    server.claims, server.in_part = [], ("web1",)
    assert kinds_of(gather(file, FakeClock(), keep)) == [("could-not-tell", "policy", 0), *told]
    server.in_part, server.nodes_unread = (), True
    assert kinds_of(gather(file, FakeClock(), keep)) == [("could-not-tell", "policy", 0), *told]
    server.down = True
    assert told[0] in kinds_of(gather(file, FakeClock(), keep))
    # Read whole again, and taken back: that ends it.
    server.down = server.nodes_unread = False
    assert kinds_of(gather(file, FakeClock(), keep)) == []


def test_what_another_node_takes_back_is_over_though_one_cannot_be_read(file: Path, server: Server, tmp_path: Path):
    keep = tmp_path / "keep"
    server.claims = [22]
    gather(file, FakeClock(), keep)
    server.claims, server.in_part = [], ("web2",)
    assert kinds_of(gather(file, FakeClock(), keep)) == [("could-not-tell", "policy", 0)]


def test_nodes_that_cannot_be_read_are_no_pass(file: Path, server: Server):
    server.nodes_unread = True
    server.problems = (InventoryProblem(InventoryReason.FORBIDDEN, "nodes cannot be read"),)
    gathered = gather(file, FakeClock())
    assert kinds_of(gathered) == [("could-not-tell", "policy", 0)]
    assert exit_code(gathered.drifts) == 2


def test_a_firewall_that_cannot_be_read_opens_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, keep = tmp_path / "ports.yml", tmp_path / "keep"
    file.write_text(
        "version: 1\nown_networks: [192.0.2.0/24]\nhosts: {db1: {addresses: [192.0.2.20]}}\n"
        "inventories: [{name: fw, firewall: {host: db1, live: true, format: iptables}}]\n"
    )
    raw = b"*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    monkeypatch.setattr("vedette.inventory.firewall._run", lambda _: raw)
    told = kinds_of(gather(file, FakeClock(), keep))
    assert told == [("inventories-disagree", "db1", 22)]

    def broken(program: object) -> bytes:
        raise ConfigError("iptables-save: exit 1")

    monkeypatch.setattr("vedette.inventory.firewall._run", broken)
    gathered = gather(file, FakeClock(), keep)
    assert kinds_of(gathered) == told
    assert "iptables-save: exit 1" in gathered.inventories[0].stale
    gathered = gather(file, FakeClock())
    assert (kinds_of(gathered), exit_code(gathered.drifts)) == ([("could-not-tell", "policy", 0)], 2)


def test_claims_of_nobody_are_no_pass(tmp_path: Path):
    file = tmp_path / "ports.yml"
    file.write_text(
        "version: 1\nown_networks: [192.0.2.0/24]\nhosts: {db1: {addresses: [192.0.2.20]}}\n"
        "inventories: [{name: cloud, aws: {security_groups: sg.json, instances: i.json}}]\n"
    )
    (tmp_path / "sg.json").write_text('{"SecurityGroups": []}')
    (tmp_path / "i.json").write_text('{"Reservations": []}')
    gathered = gather(file, FakeClock())
    assert (kinds_of(gathered), exit_code(gathered.drifts)) == ([("could-not-tell", "policy", 0)], 2)
    assert "names no host" in gathered.drifts[0].advice


def test_what_was_read_long_after_now_is_of_no_known_age(file: Path, server: Server, tmp_path: Path):
    keep, clock = tmp_path / "keep", FakeClock()
    gather(file, clock, keep)
    server.down = True
    early = FakeClock(clock.now() - 31 * MINUTE)
    assert kinds_of(gather(file, early, keep)) == [("could-not-tell-too-long", "policy", 0)]
    assert kinds_of(gather(file, FakeClock(clock.now() - MINUTE), keep)) == []


@pytest.mark.parametrize(
    ("key", "read"), [("file: chef.pem", "{}/chef.pem"), ("file: /etc/k", "/etc/k"), ("env: K", "")]
)
def test_a_key_lies_where_the_policy_stands(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, key: str, read: str
):
    monkeypatch.chdir("/")
    file = tmp_path / "ports.yml"
    file.write_text(FILE.replace("env: CHEF_KEY", key))
    gather(file, FakeClock())
    assert server.words.key.file == read.format(tmp_path)


def test_a_policy_behind_a_link_that_is_set_anew_is_the_same(tmp_path: Path):
    link, keep = tmp_path / "ports.yml", tmp_path / "keep"
    for release, ports in (("one", "22/tcp: nobody"), ("two", "22/tcp: world")):
        (tmp_path / release).mkdir()
        (tmp_path / release / "ports.yml").write_text(
            "version: 1\nown_networks: [192.0.2.0/24]\n"
            f"hosts: {{db1: {{addresses: [192.0.2.20], ports: {{{ports}}}}}}}\n"
        )
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / release / "ports.yml")
        told = kinds_of(gather(link, FakeClock(), keep))
    assert told == [("policy-widened", "db1", 22)]
