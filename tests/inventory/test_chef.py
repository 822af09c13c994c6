"""Meaning: what a Chef server says is policy only where those say it who may; against the server of the scenarios."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.parts.chef import ChefServer

from vedette.inventory import chef_signing
from vedette.inventory.chef import ChefWords, read_chef
from vedette.model.clock import SystemClock
from vedette.model.errors import InventoryError
from vedette.model.ports import Expectations, HostExpectation
from vedette.model.reasons import InventoryReason

KEYS = cache(chef_signing._private_key)
"""Each key is read once: the library proves its primes every time."""


@pytest.fixture
def chef(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChefServer]:
    with ChefServer(bits=1024) as server:
        monkeypatch.setenv("CHEF_KEY", server.key_pem)
        monkeypatch.setattr(chef_signing, "_private_key", KEYS)
        yield server


def words(chef: ChefServer, **more: Any) -> ChefWords:
    said = {"url": chef.url, "user": chef.user, "key": {"env": "CHEF_KEY"}, "plain_http": True, **more}
    return ChefWords.model_validate(said)


async def no_pause(seconds: float) -> None:
    del seconds


def read(chef: ChefServer, **more: Any) -> Expectations:
    return read_chef(words(chef, **more), "chef", SystemClock(), pause=no_pause)


def refused(chef: ChefServer, **more: Any) -> InventoryError:
    with pytest.raises(InventoryError) as caught:
        read(chef, **more)
    return caught.value


def opened(host: HostExpectation) -> dict[str, tuple[str, ...]]:
    return {f"{one.ports}/{one.protocol.value}": one.sources for one in host.openings}


def origins(host: HostExpectation) -> dict[str, str]:
    return {f"{one.ports}/{one.protocol.value}": one.origin.file for one in host.openings}


def ports(said: dict[str, Any]) -> dict[str, Any]:
    return {"vedette": {"ports": said}}


# ---------------------------------------------------------------------------------------------- who may say


def test_policy_comes_from_the_roles_of_hosts_that_are_listed(chef: ChefServer):
    chef.set_role("base", default_attributes=ports({"22/tcp": "gateways"}))
    chef.set_role(
        "web",
        run_list=["recipe[nginx]", "role[base]"],
        default_attributes={
            "vedette": {
                "ports": {"443/tcp": {"from": "world", "must_answer": True, "owner": "shop"}},
                "open_ports": [80],
            }
        },
    )
    chef.set_role("bastion", override_attributes={"vedette": {"gateway": True, "ports": {"22/tcp": "world"}}})
    found = read(
        chef,
        hosts={
            "web1": {"roles": ["web"], "addresses": ["192.0.2.9", "2001:DB8::9"]},
            "gw.example.org": {"roles": ["bastion", "base"]},
        },
    )
    web, gateway = found.hosts
    assert (web.name, web.addresses, web.names) == ("web1", ("192.0.2.9", "2001:db8::9"), ())
    assert (web.roles, web.gateway) == (("web", "base"), False)
    assert opened(web) == {"443/tcp": ("world",), "22/tcp": ("gateways",), "80/tcp": ("world",)}
    assert origins(web) == {
        "443/tcp": "chef:role[web] default_attributes.vedette.ports.443/tcp",
        "22/tcp": "chef:role[base] default_attributes.vedette.ports.22/tcp",
        "80/tcp": "chef:role[web] default_attributes.vedette.open_ports",
    }
    assert [(one.must_answer, one.owner) for one in web.openings if "443" in str(one.ports)] == [(True, "shop")]
    assert (gateway.gateway, gateway.names, opened(gateway)) == (True, ("gw.example.org",), {"22/tcp": ("world",)})
    assert (found.inventory, found.claims, found.problems, found.stale) == ("chef", (), (), "")
    assert found.read_at > 0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        # Role over environment by default; the override of an environment over that of a role.
        ("_default", {"80/tcp": ("role",), "81/tcp": ("override-role",)}),
        ("production", {"80/tcp": ("role",), "81/tcp": ("override-environment",), "82/tcp": ("environment",)}),
    ],
)
def test_environment_and_roles_have_the_precedence_of_chef(
    chef: ChefServer, environment: str, expected: dict[str, tuple[str, ...]]
):
    chef.set_role(
        "web",
        default_attributes=ports({"80/tcp": "role", "81/tcp": "role"}),
        override_attributes=ports({"81/tcp": "override-role"}),
    )
    chef.set_environment(
        "production",
        default_attributes=ports({"80/tcp": "environment", "82/tcp": "environment"}),
        override_attributes=ports({"81/tcp": "override-environment"}),
    )
    found = read(chef, nodes="none", hosts={"web1": {"roles": ["web"], "environment": environment}})
    assert opened(found.hosts[0]) == expected


def test_a_role_wins_over_those_in_its_run_list_and_a_later_one_over_earlier_ones(chef: ChefServer):
    chef.set_role("inner", default_attributes=ports({"80/tcp": "inner", "81/tcp": "inner", "82/tcp": "inner"}))
    chef.set_role("outer", run_list=["role[inner]", "role[outer]"], default_attributes=ports({"80/tcp": "outer"}))
    chef.set_role("later", run_list=["role[inner]"], default_attributes=ports({"81/tcp": "later"}))
    (host,) = read(chef, nodes="none", hosts={"web1": {"roles": ["outer", "later"]}}).hosts
    assert host.roles == ("outer", "inner", "later")
    assert opened(host) == {"80/tcp": ("outer",), "81/tcp": ("later",), "82/tcp": ("inner",)}


def test_a_run_list_of_an_environment_replaces_that_of_the_role(chef: ChefServer):
    chef.set_role("debug", default_attributes=ports({"9000/tcp": "world"}))
    chef.set_role("web", run_list=["role[debug]"], env_run_lists={"production": []})
    chef.set_environment("production")
    chef.set_environment("staging")
    hosts = {one: {"roles": ["web"], "environment": one} for one in ("production", "staging")}
    production, staging = read(chef, nodes="none", hosts=hosts).hosts
    assert (opened(production), production.roles) == ({}, ("web",))
    assert (opened(staging), staging.roles) == ({"9000/tcp": ("world",)}, ("web", "debug"))


def test_a_policyfile_stands_in_place_of_roles_and_its_group_comes_up(chef: ChefServer):
    chef.set_policy(
        "production",
        "shop",
        default_attributes={**ports({"80/tcp": "world", "81/tcp": "world"}), "production": ports({"81/tcp": "office"})},
    )
    chef.set_policy("staging", "shop", default_attributes=ports({"80/tcp": "office"}))
    hosts = {one: {"policy_name": "shop", "policy_group": one} for one in ("production", "staging")}
    production, staging = read(chef, nodes="none", hosts=hosts).hosts
    assert opened(production) == {"80/tcp": ("world",), "81/tcp": ("office",)}
    assert origins(production)["81/tcp"] == (
        "chef:policy[shop/production] default_attributes.production.vedette.ports.81/tcp"
    )
    assert opened(staging) == {"80/tcp": ("office",)}


def test_hosts_of_a_data_bag_have_what_the_bag_says_and_their_own_word_on_ports_wins(chef: ChefServer):
    chef.set_role("web", default_attributes={"vedette": {"open_ports": [80, 443, "8000-8010"]}})
    chef.set_item("servers", "web1", rack=7, firewall={"roles": ["web"], "closed_ports": [80], "ports": {"443": "x"}})
    error = refused(chef, hosts_bag={"bag": "servers", "at": "firewall"}, nodes="none")
    assert (error.reason, str(error.location)) == (InventoryReason.WRONG_WORDS, "chef:data[servers/web1]")
    assert "ports.443" in error.message
    item = {"roles": ["web"], "closed_ports": [80], "ports": {"443/tcp": "office"}, "host": "web1.example.org"}
    chef.set_item("servers", "web1", rack=7, firewall={**item, "addresses": ["192.0.2.9"]})
    chef.set_item("servers", "printer", rack=8)
    (host,) = read(chef, hosts_bag={"bag": "servers", "at": "firewall"}, nodes="none").hosts
    assert (host.name, host.addresses, host.names) == ("web1.example.org", ("192.0.2.9",), ())
    assert opened(host) == {"80/tcp": ("nobody",), "443/tcp": ("office",), "8000-8010/tcp": ("world",)}
    assert origins(host)["443/tcp"] == "chef:data[servers/web1].ports.443/tcp"


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"rols": ["web"]}, "rols: is not a key that stands here"),
        ({"roles": ["web"], "policy_name": "a", "policy_group": "b"}, "in place of roles"),
        ({"policy_name": "a"}, "both of them"),
        ({"addresses": ["web1"]}, "is not an address"),
        ({"open_ports": [True]}, "no ports"),
        ({"open_ports": ["22/sctp"]}, "is not a port"),
        ({"ports": {"22/tcp": "world", "20-30/tcp": "office"}}, "already spoken of"),
        ({"ports": {"encrypted_data": "x", "iv": "y", "cipher": "aes-256-gcm"}}, "is encrypted"),
        ({"roles": ["nope"]}, "there is no role[nope]"),
        ({"environment": "nope"}, "there is no environment nope"),
        ({"policy_name": "a", "policy_group": "b"}, "there is no policy a in policy group b"),
    ],
)
def test_what_cannot_be_meant_in_a_data_bag_is_an_error_with_its_place(chef: ChefServer, item: Any, says: str):
    chef.set_item("servers", "web1", **item)
    error = refused(chef, hosts_bag={"bag": "servers"}, nodes="none")
    assert says in str(error)
    assert str(error).startswith("chef:data[servers/web1]")
    assert error.reason in (InventoryReason.WRONG_WORDS, InventoryReason.UNKNOWN_NAME)


def test_a_host_is_described_once(chef: ChefServer):
    chef.set_item("servers", "web1")
    error = refused(chef, hosts_bag={"bag": "servers"}, hosts={"web1": {}}, nodes="none")
    assert "web1 is described in chef:hosts.web1 too" in str(error)


@pytest.mark.parametrize(
    ("attributes", "says", "where"),
    [
        ({"vedette": {"ports": {"22/tpc": "world"}}}, "is not a port", ".vedette.ports.22/tpc"),
        ({"vedette": {"ports": {"22/tcp": {"form": "world"}}}}, "known: from, must_answer", ".vedette.ports.22/tcp"),
        ({"vedette": {"ports": {"22/tcp": {"from": "world", "until": "soon"}}}}, "no date", ".vedette.ports.22/tcp"),
        ({"vedette": {"ports": {"22/tcp": ["nobody", "x"]}}}, "nobody, and others", ".vedette.ports.22/tcp"),
        ({"vedette": {"ports": [22]}}, "not a mapping of ports", ".vedette.ports"),
        ({"vedette": {"open_ports": {"22": 1}}}, "not a list of ports", ".vedette.open_ports"),
        ({"vedette": {"open_ports": [22, 70000]}}, "ports run from 1", ".vedette.open_ports"),
        ({"vedette": {"closed_ports": [None]}}, "no port", ".vedette.closed_ports"),
        ({"vedette": {"gateway": "yes"}}, "true or false", ".vedette.gateway"),
        ({"vedette": "22"}, "vedette is not a mapping", ".vedette"),
    ],
)
def test_what_cannot_be_meant_in_a_role_is_an_error_with_role_and_path(
    chef: ChefServer, attributes: Any, says: str, where: str
):
    chef.set_role("web", default_attributes=attributes)
    error = refused(chef, hosts={"web1": {"roles": ["web"]}}, nodes="none")
    assert says in error.message + error.hint
    assert str(error.location) == f"chef:role[web] default_attributes{where}"
    assert error.reason is InventoryReason.WRONG_WORDS


def test_attribute_paths_are_the_operators(chef: ChefServer):
    chef.set_role("web", default_attributes={"fw": {"in": [22, "53/udp"], "in.v2": {"80/tcp": "world"}}})
    attributes = {"ports": [["fw", "in.v2"]], "open": ["fw.in"], "open_from": "office"}
    (host,) = read(chef, attributes=attributes, hosts={"web1": {"roles": ["web"]}}, nodes="none").hosts
    assert opened(host) == {"80/tcp": ("world",), "22/tcp": ("office",), "53/udp": ("office",)}


def test_sources_that_are_not_asked_for_say_nothing(chef: ChefServer):
    chef.set_role("web", default_attributes=ports({"80/tcp": "world"}))
    chef.set_environment("production", default_attributes=ports({"81/tcp": "world"}))
    host = {"roles": ["web"], "environment": "production"}
    for sources, expected in ((["roles"], ["80/tcp"]), (["environments"], ["81/tcp"]), ([], [])):
        found = read(chef, sources=sources, hosts={"web1": host}, nodes="none")
        assert (list(opened(found.hosts[0])), found.hosts[0].roles) == (expected, ("web",))


# ---------------------------------------------------------------------------------------------- nodes as witnesses


def test_a_node_does_not_widen_its_own_policy(chef: ChefServer):
    chef.set_role("web", default_attributes=ports({"443/tcp": "world"}))
    chef.set_role(
        "bastion", default_attributes=ports({"22/tcp": "world"}), override_attributes={"vedette": {"gateway": True}}
    )
    chef.set_node("web1", run_list=["role[web]"], automatic={"ipaddress": "192.0.2.9", "fqdn": "web1.example.org"})
    hosts = {"web1": {"roles": ["web"]}}
    before = read(chef, hosts=hosts)
    chef.set_node(
        "web1",
        run_list=["role[web]", "role[bastion]"],
        chef_environment="_default",
        normal={"vedette": {"open_ports": [8080]}},
        automatic={"ipaddress": "192.0.2.66"},
    )
    after = read(chef, hosts=hosts)
    assert after.hosts == before.hosts
    assert (after.hosts[0].addresses, opened(after.hosts[0])) == ((), {"443/tcp": ("world",)})
    (first,), (claim,) = before.claims, after.claims
    assert (first.addresses, first.names, opened(first)) == (
        ("192.0.2.9",),
        ("web1.example.org",),
        {"443/tcp": ("world",)},
    )
    assert (claim.roles, claim.gateway, claim.addresses) == (("web", "bastion"), True, ("192.0.2.66",))
    assert origins(claim) == {
        "8080/tcp": "chef:node[web1] vedette.open_ports",
        "22/tcp": "chef:node[web1] run_list: chef:role[bastion] default_attributes.vedette.ports.22/tcp",
        "443/tcp": "chef:node[web1] run_list: chef:role[web] default_attributes.vedette.ports.443/tcp",
    }
    assert after.claims_complete


def test_a_node_that_changes_its_environment_or_policy_claims_and_has_nothing(chef: ChefServer):
    chef.set_environment("lab", default_attributes=ports({"9000/tcp": "world"}))
    chef.set_policy("lab", "open", default_attributes=ports({"9001/tcp": "world"}))
    chef.set_node("web1", chef_environment="lab")
    chef.set_node("web2", policy_name="open", policy_group="lab")
    found = read(chef, hosts={"web1": {}, "web2": {}})
    assert [opened(host) for host in found.hosts] == [{}, {}]
    assert [opened(claim) for claim in found.claims] == [{"9000/tcp": ("world",)}, {"9001/tcp": ("world",)}]
    assert origins(found.claims[1])["9001/tcp"].startswith("chef:node[web2] policy: chef:policy[open/lab] ")


def test_nodes_that_nobody_lists_are_no_hosts(chef: ChefServer):
    chef.set_node("web1")
    chef.set_node("rogue", automatic={"ipaddress": "192.0.2.9"}, normal={"vedette": {"open_ports": [22]}})
    found = read(chef, hosts={"web1": {}})
    assert [host.name for host in found.hosts] == ["web1"]
    assert {claim.name: list(opened(claim)) for claim in found.claims} == {"rogue": ["22/tcp"], "web1": []}


@pytest.mark.parametrize(
    ("node", "reason", "complete"),
    [
        ({"normal": {"vedette": {"ports": {"x": "world"}}}}, InventoryReason.WRONG_WORDS, False),
        ({"normal": {"vedette": 7}}, None, True),
        ({"normal": {"vedette": {"open_ports": list(range(1, 1000))}}}, InventoryReason.TOO_MANY, False),
        ({"run_list": [7]}, InventoryReason.WRONG_SHAPE, False),
        ({"run_list": "role[web]"}, InventoryReason.WRONG_SHAPE, False),
        ({"chef_environment": "a/../b"}, InventoryReason.WRONG_SHAPE, False),
        ({"run_list": [f"role[r{at}]" for at in range(500)]}, InventoryReason.TOO_MANY, False),
        ({"run_list": ["role[\x1b[31mred]", "role[nope]"]}, InventoryReason.UNKNOWN_NAME, True),
        ({"run_list": ["role[broken]"]}, InventoryReason.WRONG_WORDS, False),
    ],
)
def test_a_node_that_writes_nonsense_hurts_itself_only(chef: ChefServer, node: Any, reason: Any, complete: bool):
    chef.set_role("web", default_attributes=ports({"443/tcp": "world"}))
    chef.set_role("broken", default_attributes={"vedette": {"ports": 7}})
    chef.set_node("web1", **node)
    chef.set_node("web2", normal={"vedette": {"open_ports": [8080]}})
    found = read(chef, hosts={"web1": {"roles": ["web"]}, "web2": {}})
    assert opened(found.hosts[0]) == {"443/tcp": ("world",)}
    assert opened(found.claims[-1]) == {"8080/tcp": ("world",)}
    assert [one.reason for one in found.problems] == ([reason] if reason else [])
    assert all("web1" in one.message and "\x1b" not in str(one) for one in found.problems)
    assert found.claims_complete is complete


def test_roles_that_do_not_exist_are_not_asked_for(chef: ChefServer):
    chef.set_node("web1", run_list=[f"role[r{at}]" for at in range(50)])
    read(chef, hosts={"web1": {}})
    assert [one.path for one in chef.requests] == ["/search/node", "/roles"]


@pytest.mark.parametrize(("status", "reason"), [(403, InventoryReason.FORBIDDEN), (500, InventoryReason.SERVER_ERROR)])
def test_policy_stands_where_nodes_cannot_be_read(chef: ChefServer, status: int, reason: InventoryReason):
    chef.set_role("web", default_attributes=ports({"443/tcp": "world"}))
    chef.fail_with(status, "/search")
    found = read(chef, hosts={"web1": {"roles": ["web"]}})
    assert opened(found.hosts[0]) == {"443/tcp": ("world",)}
    assert ([one.reason for one in found.problems], found.claims, found.claims_complete) == ([reason], (), False)


@pytest.mark.parametrize("node_writable", ["hints", "accept"])
def test_a_node_that_lets_nobody_read_it_costs_no_other_its_word(chef: ChefServer, node_writable: str):
    for name in ("aaa", "web1"):
        chef.set_node(name, normal={"vedette": {"open_ports": [8080]}})
    chef.fail_with(403, "/nodes/aaa")
    found = read(chef, nodes="each", node_writable=node_writable, hosts={"web1": {"addresses": ["192.0.2.1"]}})
    (web,) = [one for one in (*found.claims, *found.hosts) if one.name == "web1" and one.openings]
    assert opened(web) == {"8080/tcp": ("world",)}
    assert not found.claims_complete
    (problem,) = found.problems
    assert "aaa" in problem.message


@pytest.mark.parametrize(("page", "hidden"), [(1000, "n2"), (2, "n1"), (2, "n4"), (1, "n0")])
def test_a_node_that_is_counted_and_not_shown_is_missed(chef: ChefServer, page: int, hidden: str):
    for at in range(5):
        chef.set_node(f"n{at}", normal={"vedette": {"open_ports": [8080]}})
    assert read(chef, hosts={"n1": {}}, limits={"page": page}).claims_complete
    chef.hidden.add(hidden)
    found = read(chef, hosts={"n1": {}}, limits={"page": page})
    assert not found.claims_complete
    assert [one.reason for one in found.problems] == [InventoryReason.WRONG_SHAPE]


def test_nodes_come_in_pages_and_one_that_is_too_large_is_left_out(chef: ChefServer):
    for at in range(25):
        chef.set_node(f"n{at:02}", normal={"vedette": {"open_ports": [8000 + at]}})
    chef.set_node("n07", normal={"vedette": {"ports": {"22/tcp": {"from": "world", "reason": "x" * 3000}}}})
    found = read(chef, limits={"page": 10, "answer_bytes": 2500}, hosts={f"n{at:02}": {} for at in range(25)})
    assert [claim.name for claim in found.claims] == [f"n{at:02}" for at in range(25) if at != 7]
    assert [(one.reason, one.times) for one in found.problems] == [(InventoryReason.WRONG_SHAPE, 1)]
    assert not found.claims_complete
    assert max(int(one.query["rows"][0]) for one in chef.requests if one.query) == 10


def test_the_name_of_a_node_is_what_the_server_calls_it(chef: ChefServer):
    chef.set_node("evil", normal={"name": "web1", "vedette": {"open_ports": [22]}})
    chef.nodes["evil"]["automatic"] = {"name": "web1", "fqdn": "web1.example.org\n"}
    (claim,) = read(chef, hosts={"web1": {}}).claims
    assert (claim.name, claim.names) == ("evil", ())


def test_nodes_one_by_one_have_the_precedence_of_a_node(chef: ChefServer):
    levels = {"default": 1, "normal": 2, "override": 3, "automatic": 4}
    node = {kind: {"vedette": {"open_ports": [8000 + at]}} for kind, at in levels.items()}
    chef.set_node("web1", **node)
    del node["automatic"]
    chef.set_node("web2", **node)
    one, other = read(chef, nodes="each", hosts={"web1": {}, "web2": {}}).claims
    assert origins(one) == {"8004/tcp": "chef:node[web1] automatic.vedette.open_ports"}
    assert origins(other) == {"8003/tcp": "chef:node[web2] override.vedette.open_ports"}
    assert "/search/node" not in {request.path for request in chef.requests}


# ---------------------------------------------------------------------------------------------- nodes accepted


def test_nodes_whose_word_is_accepted_are_part_of_policy(chef: ChefServer):
    chef.set_role(
        "web", default_attributes=ports({"443/tcp": "world"}), override_attributes=ports({"22/tcp": "office"})
    )
    chef.set_node(
        "web1",
        run_list=["role[web]"],
        default={"vedette": {"ports": {"80/tcp": "cookbook", "443/tcp": "stale"}}},
        normal=ports({"8080/tcp": "world", "22/tcp": "world"}),
        automatic={"ipaddress": "192.0.2.9", "ip6address": "2001:db8::9"},
    )
    chef.set_node("listed", run_list=["role[web]"], normal=ports({"9000/tcp": "world"}))
    found = read(chef, node_writable="accept", hosts={"listed": {"roles": [], "addresses": ["192.0.2.1"]}})
    by_name = {host.name: host for host in found.hosts}
    assert opened(by_name["web1"]) == {
        "80/tcp": ("cookbook",),
        "443/tcp": ("world",),
        "8080/tcp": ("world",),
        "22/tcp": ("office",),
    }
    assert by_name["web1"].addresses == ("192.0.2.9", "2001:db8::9")
    # What is listed has the roles of the list.
    assert (by_name["listed"].roles, opened(by_name["listed"])) == ((), {"9000/tcp": ("world",)})
    assert by_name["listed"].addresses == ("192.0.2.1",)
    assert (found.claims, found.problems) == ((), ())


def test_an_accepted_node_that_writes_nonsense_is_closed_and_the_others_are_not(chef: ChefServer):
    chef.set_role("web", default_attributes=ports({"443/tcp": "world"}))
    chef.set_node("bad", run_list=["role[web]"], normal={"vedette": {"ports": 7}})
    chef.set_node("good", run_list=["role[web]"])
    found = read(chef, node_writable="accept")
    assert {host.name: opened(host) for host in found.hosts} == {"bad": {}, "good": {"443/tcp": ("world",)}}
    assert [(one.reason, one.message[:9]) for one in found.problems] == [(InventoryReason.WRONG_WORDS, "node bad:")]


# ---------------------------------------------------------------------------------------------- limits


def test_what_is_too_much_is_refused(chef: ChefServer):
    for at in range(5):
        chef.set_role(f"r{at}", run_list=[f"role[r{at + 1}]"] if at < 4 else [])
    hosts = {"web1": {"roles": ["r0"]}}
    error = refused(chef, hosts=hosts, nodes="none", limits={"objects": 3})
    assert (error.reason, "limits.objects" in error.hint) == (InventoryReason.TOO_MANY, True)
    chef.set_role("r0", default_attributes={"vedette": {"open_ports": list(range(1, 20))}})
    error = refused(chef, hosts=hosts, nodes="none", limits={"openings": 10})
    assert (error.reason, "role[r0]" in str(error)) == (InventoryReason.TOO_MANY, True)
    for at in range(4):
        chef.set_node(f"n{at}")
    error = refused(chef, node_writable="accept", limits={"nodes": 3})
    assert error.reason is InventoryReason.TOO_MANY
    found = read(chef, limits={"nodes": 3})
    assert ([one.reason for one in found.problems], found.claims_complete) == ([InventoryReason.TOO_MANY], False)


def test_roles_in_roles_end(chef: ChefServer):
    for at in range(60):
        chef.set_role(f"r{at}", run_list=[f"role[r{at + 1}]"])
    error = refused(chef, hosts={"web1": {"roles": ["r0"]}}, nodes="none")
    assert (error.reason, "deeper than 32" in error.message) == (InventoryReason.WRONG_SHAPE, True)


def test_attributes_that_are_nested_without_end_are_refused(chef: ChefServer):
    deep: Any = "world"
    for _ in range(200):
        deep = {"x": deep}
    for name in ("one", "two"):
        chef.set_role(name, default_attributes={"vedette": {"ports": {"22/tcp": deep}}})
    error = refused(chef, hosts={"web1": {"roles": ["one", "two"]}}, nodes="none")
    assert (error.reason, "nested deeper" in error.message) == (InventoryReason.WRONG_WORDS, True)


def test_problems_are_counted_past_what_is_listed(chef: ChefServer):
    for at in range(230):
        chef.set_node(f"n{at:03}", run_list=["role[nope]"])
    found = read(chef)
    assert len(found.problems) == 201
    assert (found.problems[-1].reason, found.problems[-1].times) == (InventoryReason.TOO_MANY, 30)


@pytest.mark.corpus
def test_objects_of_a_real_repository_are_read(chef: ChefServer, corpus: Path):
    folder = corpus / "chef" / "playground"

    def objects(kind: str) -> dict[str, dict[str, Any]]:
        return {path.stem: json.loads(path.read_bytes()) for path in sorted((folder / kind).glob("*.json"))}

    chef.environments |= objects("environments")
    for name, node in objects("nodes").items():
        chef.set_node(**{**node, "name": name})
    for bag in (folder / "data_bags").iterdir():
        chef.bags[bag.name] = objects(f"data_bags/{bag.name}")
    hosts = {name: {"environment": node["chef_environment"]} for name, node in chef.nodes.items()}
    assert len(hosts) == 5
    for nodes in ("search", "each"):
        found = read(chef, hosts=hosts, nodes=nodes)
        assert {one.name for one in found.claims} == {one.name for one in found.hosts} == hosts.keys()
        assert (found.problems, found.claims_complete) == ((), True)
    # Bags of other things hold no hosts of ours, and say so.
    error = refused(chef, hosts_bag={"bag": "users"}, nodes="none")
    assert "name: is not a key that stands here" in error.message
    assert read(chef, hosts_bag={"bag": "users", "at": "vedette"}, nodes="none").hosts == ()
