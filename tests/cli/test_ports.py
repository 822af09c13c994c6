"""`vedette ports`: exit codes, what is written of a drift, and that nothing outside one's own networks is touched.
Counterpart: vedette.cli.ports and vedette.app.ports; the targets are sockets of this test on loopback."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.parts import Ran, vedette

from vedette.app import ports as wiring
from vedette.inventory.yaml import parse_policy
from vedette.model.fields import FIELDS, FieldType
from vedette.sources.ports import nmap, prober

ELSEWHERE = "192.0.2.1"
"""Nobody's (RFC 5737), and in no policy's own networks here."""


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    with _listening(request.param) as server:
        yield request.param, server.getsockname()[1]


@pytest.fixture(autouse=True)
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Addresses that were connected to; one outside loopback is refused before anything leaves the machine."""
    seen: set[str] = set()

    class Watched(socket.SocketType):
        def connect_ex(self, address, /):
            seen.add(address[0])
            assert address[0] in ("127.0.0.1", "::1")
            return super().connect_ex(address)

    monkeypatch.setattr(prober, "_SOCKET", Watched)
    yield seen
    assert seen <= {"127.0.0.1", "::1"}


def _listening(address: str) -> socket.socket:
    return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


def _closed_port(address: str) -> int:
    with _listening(address) as server:
        return int(server.getsockname()[1])


def policy(
    folder: Path,
    target: str,
    ports: str,
    *,
    probe: object,
    own: str = '["127.0.0.0/8", "::1/128"]',
    more: str = "",
) -> Path:
    """A policy of one host, `me`. target: its `addresses` or `names`. ports: the mapping of its openings."""
    file = folder / "ports.yml"
    file.write_text(
        f"version: 1\nown_networks: {own}\nprobe: {{tcp: {probe}}}\n{more}"
        f"hosts:\n  me: {{{target}, ports: {{{ports}}}}}\n"
    )
    file.chmod(0o600)
    return file


def at(address: str) -> str:
    return f'addresses: ["{address}"]'


def check(file: Path, *words: object) -> Ran:
    return vedette("ports", "check", "--policy", file, *words)


def test_as_policy_says_is_exit_0_and_silent(tmp_path: Path, listener: tuple[str, int], looked_at: set[str]):
    address, port = listener
    ran = check(policy(tmp_path, at(address), f"{port}/tcp: {{from: world, must_answer: true}}", probe=port))
    assert (ran.code, ran.out) == (0, ""), ran.out
    assert "1 hosts, 1 looks" in ran.err
    assert "0 drifts" in ran.err
    assert looked_at == {address}


def test_what_is_open_and_not_allowed_is_exit_1_with_every_field(tmp_path: Path, listener: tuple[str, int]):
    address, port = listener
    shut = _closed_port(address)
    file = policy(
        tmp_path, at(address), f"{shut}/tcp: {{from: world, must_answer: true, owner: shop}}", probe=[port, shut]
    )
    ran = check(file, "--output", "json")
    assert ran.code == 1
    found = {one["destination.port"]: one for one in ran.records}
    assert set(found) == {port, shut}
    assert found[port].pop("@timestamp").endswith("Z")
    assert found[port].pop("advice").startswith(f"close {port}/tcp")
    assert found[port].pop("process.start").endswith("Z")
    assert found[port].pop("process.name")
    assert found[port].pop("vedette.ports.firewall_rule")
    assert found[port] == {
        "kind": "open-not-allowed",
        "level": "high",
        "host.name": "me",
        "destination.address": address,
        "destination.port": port,
        "network.transport": "tcp",
        "vedette.ports.vantage": "local",
        "vedette.ports.expected": "closed",
        "vedette.ports.seen": "open",
        "vedette.ports.why": "accepted",
        "vedette.ports.owner": None,
        "vedette.ports.origin": None,
        "process.pid": os.getpid(),
        "user.name": pwd.getpwuid(os.geteuid()).pw_name,
        "service.name": None,
        "package.name": found[port]["package.name"],
        "vedette.ports.namespace": None,
        "vedette.ports.firewall": "dropped",
    }
    missing = found[shut]
    assert (missing["kind"], missing["vedette.ports.owner"]) == ("must-answer", "shop")
    assert missing["vedette.ports.origin"].startswith(f"{file}:")
    text = check(file)
    assert text.code == 1
    assert f"high: me {address} {port}/tcp from local open-not-allowed: close {port}/tcp" in text.out


def test_an_opening_nobody_uses_is_told_and_no_drift(tmp_path: Path):
    shut = _closed_port("127.0.0.1")
    ran = check(policy(tmp_path, at("127.0.0.1"), f"{shut}/tcp: world", probe=shut), "--output", "json")
    assert ran.code == 0
    assert [(one["kind"], one["level"]) for one in ran.records] == [("allowed-but-closed", "informational")]


def test_drift_that_is_known_outweighs_what_could_not_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: tuple[str, int]
):
    monkeypatch.setattr(wiring, "resolve", lambda _: [])
    address, port = listener
    both = f'addresses: ["{address}"], names: [shop.example.org]'
    ran = check(policy(tmp_path, both, "", probe=port), "--output", "json")
    assert {one["kind"] for one in ran.records} == {"open-not-allowed", "could-not-tell"}
    assert ran.code == 1


@pytest.mark.parametrize(
    ("answers", "why"),
    [([], "name-unresolved"), ([ELSEWHERE], "outside-own-networks"), (["::1"], "outside-own-networks")],
)
def test_a_name_that_leads_nowhere_or_elsewhere_is_exit_2_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: set[str], answers: list[str], why: str
):
    monkeypatch.setattr(wiring, "resolve", lambda _: answers)
    file = policy(tmp_path, "names: [shop.example.org]", "", probe=_closed_port("127.0.0.1"), own="[127.0.0.0/8]")
    ran = check(file, "--output", "json")
    assert ran.code == 2
    assert [(one["kind"], one["vedette.ports.seen"], one["vedette.ports.why"]) for one in ran.records] == [
        ("could-not-tell", "unknown", why)
    ]
    assert looked_at == set()


def test_a_name_is_looked_at_under_each_of_its_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: set[str]
):
    monkeypatch.setattr(wiring, "resolve", lambda _: ["127.0.0.1", "::1"])
    port = _closed_port("127.0.0.1")
    assert check(policy(tmp_path, "names: [shop.example.org]", "", probe=port)).code == 0
    assert looked_at == {"127.0.0.1", "::1"}


@pytest.fixture
def without_nmap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmap, "PROGRAM", "no-nmap-here")


@pytest.mark.usefixtures("without_nmap")
def test_udp_could_not_be_told(tmp_path: Path):
    file = policy(tmp_path, at("127.0.0.1"), "53/udp: world", probe="[], udp: 53")
    ran = check(file, "--output", "json")
    assert ran.code == 2
    assert [(one["network.transport"], one["vedette.ports.why"]) for one in ran.records] == [("udp", "no-tool")]


@pytest.mark.usefixtures("without_nmap")
def test_what_must_answer_is_looked_at_though_probe_leaves_it_out(tmp_path: Path, listener: tuple[str, int]):
    address, port = listener
    shut = _closed_port(address)
    must = "{from: world, must_answer: true}"
    file = policy(tmp_path, at(address), f"{port}/tcp: world, {shut}/tcp: {must}", probe=port)
    ran = check(file, "--output", "json")
    assert ran.code == 1
    assert [(one["kind"], one["destination.port"]) for one in ran.records] == [("must-answer", shut)]
    assert vedette("ports", "explain", "me", port, "--policy", file).code == 0  # speaks of that port alone
    assert check(policy(tmp_path, at(address), f"{port}/tcp: world, 53/udp: {must}", probe=port)).code == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("127.0.0.1", ELSEWHERE, "outside own_networks"),
        ("tcp: 9", "tcp: []", "probes no port"),
        ("  me: {", "  # {", "names no host"),
        ("version: 1", "version: 2", "ports.yml:1:1"),
    ],
)
def test_a_policy_that_would_look_at_nothing_or_elsewhere_is_no_pass(
    tmp_path: Path, looked_at: set[str], old: str, new: str, said: str
):
    file = policy(tmp_path, at("127.0.0.1"), "", probe=9)
    text = file.read_text()
    assert old in text
    text = text.replace(old, new)
    file.write_text(text.replace("hosts:\n  #", "hosts: {}\n#"))
    ran = check(file)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert looked_at == set()


def test_a_vantage_the_policy_does_not_know_is_an_error(tmp_path: Path):
    ran = check(policy(tmp_path, at("127.0.0.1"), "", probe=9), "--vantage", "moon")
    assert ran.code == 2
    assert "no vantage moon" in ran.err


OFFICE = "networks: {office: [198.51.100.0/24]}\nvantage: {desk: {network: office}}\n"


def test_explain_and_check_judge_from_the_same_vantage(tmp_path: Path, listener: tuple[str, int]):
    address, port = listener
    file = policy(tmp_path, at(address), f"{port}/tcp: {{from: office, must_answer: true}}", probe=port, more=OFFICE)
    assert check(file).code == 0
    ran = vedette("ports", "explain", "me", port, "--policy", file, "--output", "json")
    record, inside = ran.records
    assert ran.code == 0
    assert (inside["vedette.ports.vantage"], inside["process.pid"]) == ("inside", os.getpid())
    assert inside["vedette.ports.firewall"] == "dropped"  # nobody else reaches loopback
    assert (record["vedette.ports.vantage"], record["vedette.ports.expected"]) == ("desk", "open")
    assert record["vedette.ports.sources"] == ["office"]


def test_explain_knows_the_gateways_of_the_whole_policy(tmp_path: Path, listener: tuple[str, int]):
    address, port = listener
    more = "networks: {bastions: [127.9.9.9/32]}\nvantage: {gw: {network: bastions}}\n"
    file = policy(tmp_path, at(address), f"{port}/tcp: gateways", probe=port, more=more)
    file.write_text(file.read_text() + "  gw1: {addresses: [127.9.9.9], gateway: true}\n")
    record, _ = vedette("ports", "explain", "me", port, "--policy", file, "--output", "json").records
    assert (record["vedette.ports.expected"], record["vedette.ports.seen"]) == ("either", "open")


@pytest.mark.usefixtures("without_nmap")
def test_explain_says_what_drifts_and_what_it_cannot_tell(tmp_path: Path, listener: tuple[str, int]):
    address, port = listener
    file = policy(tmp_path, at(address), "53/udp: world", probe=9)

    def explain(what: object) -> Ran:
        return vedette("ports", "explain", "me", what, "--policy", file)

    drifting = explain(port)
    assert drifting.code == 1
    assert f"high: {address} {port}/tcp from local open-not-allowed" in drifting.out
    assert explain("53/udp").code == 2
    for wrong in ("99999", "22/sctp", "ssh"):
        ran = explain(wrong)
        assert (ran.code, ran.out) == (2, "")
    assert "no host other" in vedette("ports", "explain", "other", 22, "--policy", file).err


def test_what_is_learned_is_a_policy_that_holds(tmp_path: Path):
    with _listening("127.0.0.1") as server:
        port = server.getsockname()[1]
        ran = vedette("ports", "learn", "127.0.0.1", "--own", "127.0.0.0/8", "--ports", port)
        assert ran.code == 0, ran.err
        (host,) = parse_policy(ran.out.encode(), "learned.yml").hosts
        assert host.addresses == ("127.0.0.1",)
        assert [(str(one.ports), one.sources, one.owner) for one in host.openings] == [
            (str(port), ("world",), "nobody yet")
        ]
        file = tmp_path / "learned.yml"
        file.write_text(ran.out)
        file.chmod(0o600)
        assert check(file).code == 0


@pytest.mark.parametrize("target", [ELSEWHERE, "::ffff:192.0.2.1", "127.0.0.1"])
def test_nothing_outside_own_is_learned_of(looked_at: set[str], target: str):
    ran = vedette("ports", "learn", target, "--own", "::1", "--ports", 9)
    assert (ran.code, ran.out) == (2, "")
    assert "outside --own" in ran.err
    assert looked_at == set()


def test_a_name_outside_own_is_not_learned_of(monkeypatch: pytest.MonkeyPatch, looked_at: set[str]):
    monkeypatch.setattr(wiring, "resolve", lambda _: [ELSEWHERE])
    ran = vedette("ports", "learn", "shop.example.org", "--own", "127.0.0.0/8", "--ports", 9)
    assert ran.code == 2
    assert "nothing learned" in ran.err
    assert looked_at == set()


def test_fields_of_our_own_are_in_the_registry(tmp_path: Path, listener: tuple[str, int]):
    address, port = listener
    file = policy(tmp_path, at(address), "", probe=port)
    (drift,) = check(file, "--output", "json").records
    explained, inside = vedette("ports", "explain", "me", port, "--policy", file, "--output", "json").records
    ours = {name for name in (*drift, *explained, *inside) if name.startswith("vedette.")}
    assert len(ours) == 12
    for name in ours:
        assert FIELDS[name].given_by == ("ports",)
        assert FIELDS[name].type in (FieldType.KEYWORD, FieldType.TEXT)


def test_the_schema_is_printed():
    assert '"own_networks"' in vedette("ports", "schema").out


def test_what_widened_is_news_until_a_check_has_said_it(tmp_path: Path):
    port, keep = _closed_port("127.0.0.1"), ("--keep", tmp_path / "keep")
    assert check(policy(tmp_path, at("127.0.0.1"), "", probe=port), *keep).code == 0
    file = policy(tmp_path, at("127.0.0.1"), f"{port}/tcp: world", probe=port)
    assert check(file, *keep, "--vantage", "nowhere").code == 2
    told = vedette("ports", "explain", "me", str(port % 65_535 + 1), "--policy", file, *keep)
    assert "policy-widened" not in told.out
    told = check(file, *keep)
    assert (told.code, "policy-widened" in told.out) == (1, True)
    assert check(file, *keep).code == 0
