from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from vedette.inventory.ansible import AnsibleWords
from vedette.inventory.kinds import KINDS
from vedette.inventory.yaml import (
    InventoryWords,
    parse_policy,
    parse_policy_file,
    parse_until,
    policy_lines,
    read_policy,
    schema,
)
from vedette.model.clock import HOUR, MINUTE
from vedette.model.errors import ConfigError
from vedette.model.ports import GATEWAYS, NOBODY, WORLD, Level, PortPolicy, PortRange, Protocol, Vantage
from vedette.text.times import parse_rfc3339

FULL = """\
version: 1
own_networks: [192.0.2.0/24, "2001:db8:1::/64"]
networks:
  office: [198.51.100.0/24]
vantage:
  outside: {}
  desk: {network: office, agent: desk1}
only_on_gateways: [22/tcp]
probe: {tcp: [1-1024, 8080, 1000-2000], udp: 53}
roles:
  base:
    ports:
      22/tcp: {from: gateways, owner: operations}
  bastion:
    gateway: true
    ports:
      22/tcp: {from: world, must_answer: true, owner: operations, reason: the way in}
  web:
    ports:
      80/tcp: world
      443/tcp: {from: world, must_answer: true, level: critical}
      9100-9110/tcp: [office, gateways]
      5353/udp: nobody
groups:
  shop: {roles: [web], ports: {8443/tcp: {from: office, until: 2026-12-31, reason: trial}}}
hosts:
  gw1:
    addresses: [192.0.2.1]
    roles: [bastion]
  web1:
    addresses: [192.0.2.10, "2001:db8:1::10"]
    names: [shop.example.org]
    roles: [base]
    groups: [shop]
    ports:
      80/tcp: {from: office}
  192.0.2.99: {}
  db.example.org: {}
"""


def policy(text: str = FULL) -> PortPolicy:
    return parse_policy(dedent(text).encode(), "ports.yml")


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        policy(text)
    return str(caught.value)


def test_roles_groups_and_a_hosts_own_words_come_together():
    web = policy().host("web1")
    assert web is not None
    assert {(str(one.ports), one.protocol.value, one.sources) for one in web.openings} == {
        ("80", "tcp", ("office",)),
        ("22", "tcp", (GATEWAYS,)),
        ("443", "tcp", (WORLD,)),
        ("9100-9110", "tcp", ("office", GATEWAYS)),
        ("5353", "udp", (NOBODY,)),
        ("8443", "tcp", ("office",)),
    }
    (https,) = web.covering(443, Protocol.TCP)
    assert (https.must_answer, https.level, str(https.origin)) == (True, Level.CRITICAL, "ports.yml:21:7")
    (trial,) = web.covering(8443, Protocol.TCP)
    assert trial.until == parse_rfc3339("2027-01-01T00:00:00Z")
    assert trial.expired(trial.until)
    assert not trial.expired(trial.until - 1)
    assert web.roles == ("base", "web")
    assert web.gateways == ("gw1",)


def test_a_host_without_addresses_and_names_is_called_by_its_key():
    made = policy()
    address, name = made.host("192.0.2.99"), made.host("db.example.org")
    assert address is not None
    assert name is not None
    assert (address.addresses, name.names) == (("192.0.2.99",), ("db.example.org",))
    assert made.host("2001:db8:1::10") is made.host("web1")


def test_gateways_are_a_network_of_their_own():
    made = policy()
    assert [str(one) for one in made.networks[GATEWAYS].prefixes] == ["192.0.2.1/32"]
    web, gateway = made.host("web1"), made.host("gw1")
    assert web is not None
    assert gateway is not None
    assert gateway.gateway
    (ssh,) = web.covering(22, Protocol.TCP)
    assert made.admits(ssh, Vantage("v", GATEWAYS))
    assert not made.admits(ssh, Vantage("v", WORLD))


def test_ports_to_look_at_are_sorted_and_apart():
    attention = policy().attention
    assert attention.tcp == (PortRange(1, 2000), PortRange(8080, 8080))
    assert attention.udp == (PortRange(53, 53),)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", "ports.yml:1:1: version: Input should be 1"),
        ("version: 1\n", "", "version is missing"),
        ("owner: operations}", "ovner: operations}", "did you mean owner?"),
        ("80/tcp: world", "80: world", "ports.yml:20:7: roles.web.ports.80: '80' is not a port (hint: write 22/tcp"),
        ("80/tcp: world", "80/tcp: wolrd", "there is no network wolrd (hint: did you mean world?)"),
        ("80/tcp: world", "90-80/tcp: world", "the lower first"),
        ("80/tcp: world", "80/tcp: {from: [nobody, office]}", "nobody, and others too"),
        ("80/tcp: world", "80/tcp: {from: nobody, must_answer: true}", "must answer, and nobody may reach it"),
        ("80/tcp: world", "443/tcp: world", "is there twice"),
        ("80/tcp: world", "442-444/tcp: world", "already spoken of in ports.yml:20:7"),
        ("80/tcp: world", "80/tcp: {owner: me}", "from is missing"),
        (
            "roles: [bastion]",
            "roles: [bastoin]",
            "ports.yml:29:13: there is no role bastoin (hint: did you mean bastion?)",
        ),
        ("groups: [shop]", "groups: [eu]", "there is no group eu"),
        ("[192.0.2.1]", "[198.51.100.1]", "ports.yml:28:17: 198.51.100.1 is outside own_networks"),
        ("192.0.2.99", "203.0.113.9", "203.0.113.9 is outside own_networks"),
        ("[192.0.2.1]", "[192.0.2.010]", "is not an address"),
        ("192.0.2.99: {}", "other: {addresses: [192.0.2.1]}", "192.0.2.1 belongs to gw1 too"),
        ("[192.0.2.0/24,", "[0.0.0.0/0,", "too wide to be one's own"),
        ("[198.51.100.0/24]", "[0.0.0.0/0]", "is everybody"),
        ("2026-12-31", "31.12.2026", "is no date"),
        ("{from: gateways, owner: operations}", "world", "open to the world on web1, which is no gateway"),
        ("gateway: true", "gateway: false", "and no host is one"),
        ("office: [198", "world: [198", "has a meaning of its own"),
        ("version: 1", "version: 1\nversion: 1", "is there twice"),
        ("network: office, agent", "network: offfice, agent", "did you mean office?"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, said: str):
    assert old in FULL
    message = refused(FULL.replace(old, new))
    assert message.startswith("ports.yml:")
    assert said in message


@pytest.mark.parametrize("text", ["", "[]", "version: 1\n---\nversion: 1", "a: &a [*a]", "\x00"])
def test_what_is_no_policy_is_refused(text: str):
    assert refused(text)


def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path):
    file = tmp_path / "ports.yml"
    file.write_text(FULL)
    file.chmod(0o644)
    assert len(read_policy(file).hosts) == 4
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="everybody may write it"):
        read_policy(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(tmp_path / "none.yml")


def test_a_time_may_end_an_opening():
    assert parse_until("2026-12-31T18:00:00+01:00") == parse_rfc3339("2026-12-31T17:00:00Z")


def test_what_is_written_reads_as_the_same():
    made = policy()
    again = parse_policy("\n".join(policy_lines(made)).encode(), "again.yml")
    assert again.own_networks == made.own_networks
    assert again.attention == made.attention
    for one, other in zip(made.hosts, again.hosts, strict=True):
        assert (one.addresses, one.names, one.gateway) == (other.addresses, other.names, other.gateway)
        assert [(o.ports, o.protocol, o.sources, o.must_answer, o.owner, o.reason) for o in one.openings] == [
            (o.ports, o.protocol, o.sources, o.must_answer, o.owner, o.reason) for o in other.openings
        ]


def test_the_schema_names_every_key_of_the_file():
    made = schema()
    assert set(made["properties"]) == {
        "version",
        "own_networks",
        "networks",
        "vantage",
        "only_on_gateways",
        "probe",
        "roles",
        "groups",
        "hosts",
        "inventories",
    }
    assert "from" in made["$defs"]["PortWords"]["properties"]
    assert made["additionalProperties"] is False


# ------------------------------------------------------------------------------------------------ inventories

ASKING = """\
version: 1
own_networks: [192.0.2.0/24]
only_on_gateways: [22/tcp]
hosts:
  web1: {addresses: [192.0.2.10], ports: {22/tcp: world, 80/tcp: gateways}}
inventories:
  - name: site
    ansible: {inventory: hosts.yml}
  - name: chef
    stale_after: 10m
    chef: {url: "https://chef.example.org/organizations/shop", user: vedette, key: {env: CHEF_KEY}}
  - name: cloud
    aws: {security_groups: sg.json, instances: instances.json}
  - name: web1-firewall
    firewall: {host: web1, file: ruleset.json}
"""


def test_inventories_are_named_with_their_kind_and_words():
    found = parse_policy_file(ASKING.encode(), "ports.yml")
    assert [(one.name, one.kind, one.stale_after) for one in found.inventories] == [
        ("site", "ansible", HOUR),
        ("chef", "chef", 10 * MINUTE),
        ("cloud", "aws", HOUR),
        ("web1-firewall", "firewall", HOUR),
    ]
    assert found.inventories[0].words == AnsibleWords(inventory="hosts.yml")
    assert str(found.inventories[1].origin) == "ports.yml:9:5"
    # Who is a gateway is not known before they are asked.
    assert found.policy.hosts[0].name == "web1"


def test_a_policy_that_asks_inventories_is_none_without_them():
    with pytest.raises(ConfigError, match=r"ports.yml:7:5: asks the inventory site, which was not read"):
        parse_policy(ASKING.encode(), "ports.yml")


def test_every_kind_of_inventory_has_its_key_and_its_reader():
    assert {name for name in InventoryWords.model_fields if name not in ("name", "stale_after")} == set(KINDS)
    for name, kind in KINDS.items():
        assert kind.words.__name__ in str(InventoryWords.model_fields[name].annotation)
        assert set(kind.paths) <= set(kind.words.model_fields)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: chef", "name: site", "ports.yml:9:5: site is there twice"),
        ("name: site", "name: ../site", "inventories.0.name: String should match"),
        ("10m", "never", "inventories.1.stale_after"),
        ("    ansible: {inventory: hosts.yml}\n", "", "inventories.0: an inventory is of one kind"),
        ("    aws:", "    ansible: {inventory: x}\n    aws:", "inventories.2: an inventory is of one kind"),
        ("    ansible:", "    anisble:", "did you mean ansible?"),
        ("inventory: hosts", "inventroy: hosts", "inventories.0.ansible"),
        (", instances: instances.json", "", "nothing says which host has which group"),
        ("{env: CHEF_KEY}", "secret", "inventories.1.chef.key"),
    ],
)
def test_what_is_wrong_with_an_inventory_is_said_with_its_place(old: str, new: str, said: str):
    assert old in ASKING
    with pytest.raises(ConfigError) as caught:
        parse_policy_file(ASKING.replace(old, new).encode(), "ports.yml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("ports.yml:")


def test_an_address_that_begins_with_colons_is_a_host_too():
    made = parse_policy(b'version: 1\nown_networks: ["::1"]\nhosts:\n  "::1": {}\n', "ports.yml")
    assert made.hosts[0].addresses == ("::1",)
    again = parse_policy("\n".join(policy_lines(made)).encode(), "again.yml")
    assert (again.hosts[0].name, again.hosts[0].addresses) == ("::1", ("::1",))
