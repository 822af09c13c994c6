from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.inventory.joining import Joined, join
from vedette.inventory.widening import widened
from vedette.inventory.yaml import parse_policy
from vedette.model.errors import Location
from vedette.model.levels import Level
from vedette.model.ports import (
    GATEWAYS,
    NOBODY,
    WORLD,
    Drift,
    DriftKind,
    Expectations,
    HostExpectation,
    NamedNetwork,
    Opening,
    PortPolicy,
    PortRange,
    Protocol,
    SeenWhy,
    Vantage,
)

NOW = 1_700_000_000_000_000
DAY = 86_400_000_000
OWN = (ip_network("192.0.2.0/24"),)
OFFICE = NamedNetwork("office", (ip_network("198.51.100.0/24"),))
FLOOR = NamedNetwork("floor", (ip_network("198.51.100.64/26"),))
VPN = NamedNetwork("vpn", (ip_network("203.0.113.0/24"),))
NETWORKS = {one.name: one for one in (OFFICE, FLOOR, VPN)}


def opening(ports: str, *sources: str, **more: object) -> Opening:
    span, _, protocol = ports.partition("/")
    first, _, last = span.partition("-")
    made = Opening(PortRange(int(first), int(last or first)), Protocol(protocol or "tcp"), sources or (WORLD,))
    return replace(made, **more)  # type: ignore[arg-type]


def host(name: str, *openings: Opening, at: str = "192.0.2.10", line: int = 1, **more: object) -> HostExpectation:
    made = HostExpectation(name, (at,), openings=openings, origin=Location("some.yml", line))
    return replace(made, **more)  # type: ignore[arg-type]


def policy(*hosts: HostExpectation, **more: object) -> PortPolicy:
    made = PortPolicy(OWN, hosts, NETWORKS, origin=Location("ports.yml", 1, 1))
    return replace(made, **more)  # type: ignore[arg-type]


def said(inventory: str, *hosts: HostExpectation, **more: object) -> Expectations:
    return replace(Expectations(inventory, hosts), **more)  # type: ignore[arg-type]


def let_in(joined: Joined, name: str, port: int, *, at: int = NOW) -> set[str]:
    """Whom the joined policy lets reach a TCP port."""
    found = joined.policy.host(name)
    assert found is not None
    return {s for one in found.covering(port, Protocol.TCP) if not one.expired(at) for s in one.sources} - {NOBODY}


def kinds(drifts: tuple[Drift, ...]) -> list[tuple[str, str, int]]:
    return [(one.kind.value, one.host, one.port) for one in drifts]


# ------------------------------------------------------------------------------------------ policy and inventories


def test_inventories_add_up_where_only_one_of_them_speaks():
    joined = join(
        policy(host("web1", opening("22", "office"))),
        [said("chef", host("web1", opening("443"), roles=("web",))), said("site", host("db1", at="192.0.2.20"))],
        NOW,
    )
    assert [one.name for one in joined.policy.hosts] == ["web1", "db1"]
    assert let_in(joined, "web1", 22) == {"office"}
    assert let_in(joined, "web1", 443) == {WORLD}
    assert joined.policy.hosts[0].roles == ("web",)
    assert joined.drifts == ()


def test_of_two_inventories_the_stricter_counts_and_both_are_named():
    one = opening("443", origin=Location("chef:role[web]"))
    other = opening("443", "office", origin=Location("site.yml", 3, 7), must_answer=True)
    joined = join(policy(), [said("site", host("web1", other)), said("chef", host("web1", one))], NOW)
    assert let_in(joined, "web1", 443) == {"office"}
    (drift,) = joined.drifts
    assert (drift.kind, drift.host, drift.port) == (DriftKind.INVENTORIES_DISAGREE, "web1", 443)
    assert (drift.level, drift.address) == (Level.MEDIUM, "192.0.2.10")
    assert (
        "by chef: world (chef:role[web]); by site: office (site.yml:3:7); the stricter counts: office" in drift.advice
    )
    (web,) = joined.policy.hosts
    assert web.covering(443, Protocol.TCP)[0].must_answer


def test_a_network_within_the_other_is_the_stricter_one_and_networks_apart_leave_nobody():
    inside = join(
        policy(),
        [said("a", host("web1", opening("22", "office"))), said("b", host("web1", opening("22", "floor")))],
        NOW,
    )
    assert let_in(inside, "web1", 22) == {"floor"}
    apart = join(
        policy(), [said("a", host("web1", opening("22", "vpn"))), said("b", host("web1", opening("22", "floor")))], NOW
    )
    assert let_in(apart, "web1", 22) == set()
    assert kinds(inside.drifts) == kinds(apart.drifts) == [("inventories-disagree", "web1", 22)]


def test_the_sooner_end_counts():
    ended = join(
        policy(),
        [said("a", host("web1", opening("22"))), said("b", host("web1", opening("22", until=NOW + DAY)))],
        NOW,
    )
    assert let_in(ended, "web1", 22) == {WORLD}
    assert let_in(ended, "web1", 22, at=NOW + DAY) == set()
    assert len(ended.drifts) == 1


def test_nobody_is_a_word_too():
    joined = join(
        policy(), [said("a", host("web1", opening("1-100"))), said("b", host("web1", opening("80", NOBODY)))], NOW
    )
    assert [let_in(joined, "web1", port) for port in (79, 80, 81)] == [{WORLD}, set(), {WORLD}]
    assert kinds(joined.drifts) == [("inventories-disagree", "web1", 80)]


def test_the_policy_file_counts_on_what_it_speaks_of():
    joined = join(
        policy(host("web1", opening("443", "vpn"))),
        [said("chef", host("web1", opening("443"), opening("80")))],
        NOW,
    )
    assert let_in(joined, "web1", 443) == {"vpn"}
    assert let_in(joined, "web1", 80) == {WORLD}
    (drift,) = joined.drifts
    assert "the policy file counts" in drift.advice
    wider = join(policy(host("web1", opening("443"))), [said("chef", host("web1", opening("443", "vpn")))], NOW)
    assert let_in(wider, "web1", 443) == {WORLD}
    assert kinds(wider.drifts) == [("inventories-disagree", "web1", 443)]


def test_one_network_by_two_names_is_no_disagreement():
    bureau = NamedNetwork("bureau", OFFICE.prefixes)
    joined = join(
        policy(host("web1", opening("22", "office"))),
        [said("site", host("web1", opening("22", "bureau")), networks=(bureau,))],
        NOW,
    )
    assert joined.drifts == ()


def test_of_two_networks_of_one_name_the_files_counts_else_what_both_hold():
    wide = NamedNetwork("office", (ip_network("198.51.0.0/16"),), Location("site.yml", 9))
    joined = join(policy(), [said("site", host("web1", opening("22", "office")), networks=(wide,))], NOW)
    assert joined.policy.networks["office"].prefixes == OFFICE.prefixes
    assert kinds(joined.drifts) == [("inventories-disagree", "policy", 0)]
    one = NamedNetwork("lab", (ip_network("10.0.0.0/8"), ip_network("172.16.0.0/12")))
    other = NamedNetwork("lab", (ip_network("10.1.0.0/16"),))
    both = join(
        policy(),
        [
            said("a", host("web1", opening("22", "lab")), networks=(one,)),
            said("b", host("web1", opening("80", "lab")), networks=(other,)),
        ],
        NOW,
    )
    assert both.policy.networks["lab"].prefixes == other.prefixes
    assert kinds(both.drifts) == [("inventories-disagree", "policy", 0)]


def test_a_source_that_no_inventory_defines_lets_nobody_in():
    joined = join(policy(), [said("site", host("web1", opening("22", "offcie", "vpn"), opening("80", "moon")))], NOW)
    assert let_in(joined, "web1", 22) == {"vpn"}
    assert let_in(joined, "web1", 80) == set()
    assert kinds(joined.drifts) == [("inventories-disagree", "web1", 22), ("inventories-disagree", "web1", 80)]
    assert "did you mean office?" in joined.drifts[0].advice


def test_a_host_is_known_by_name_or_by_address():
    joined = join(
        policy(host("web1", opening("22", "office"))),
        [said("chef", replace(host("web1.example.org", opening("443")), names=("web1.example.org",)))],
        NOW,
    )
    (web,) = joined.policy.hosts
    assert (web.name, web.addresses, web.names) == ("web1", ("192.0.2.10",), ("web1.example.org",))
    assert let_in(joined, "web1", 443) == {WORLD}


def test_a_host_of_the_file_that_is_only_a_name_takes_the_address_an_inventory_knows():
    bare = HostExpectation("web1", (), ("web1",))
    joined = join(policy(bare), [said("site", host("web1"))], NOW)
    assert (joined.policy.hosts[0].addresses, joined.policy.hosts[0].names) == (("192.0.2.10",), ())


def test_a_name_that_is_all_an_inventory_knows_is_looked_up_only_where_nobody_knows_more():
    called = HostExpectation("web1", (), ("web1",), openings=(opening("443"),))
    (alone,) = join(policy(), [said("site", called)], NOW).policy.hosts
    assert (alone.addresses, alone.names) == ((), ("web1",))
    (known,) = join(policy(host("web1")), [said("site", called)], NOW).policy.hosts
    assert (known.addresses, known.names) == (("192.0.2.10",), ())
    (both,) = join(
        policy(), [said("a", called), said("b", replace(host("web1"), names=("shop.test",)))], NOW
    ).policy.hosts
    assert (both.addresses, both.names) == (("192.0.2.10",), ("shop.test",))


def test_an_address_that_two_hosts_claim_stays_with_the_first():
    joined = join(
        policy(host("web1", opening("443"))),
        [said("site", host("web1"), host("db1", opening("5432"), at="192.0.2.10"))],
        NOW,
    )
    assert [one.name for one in joined.policy.hosts] == ["web1"]
    assert let_in(joined, "web1", 5432) == set()
    (drift,) = joined.drifts
    assert "192.0.2.10 belongs to web1 (some.yml:1), and by site (some.yml:1) to db1 too" in drift.advice


def test_what_is_not_ones_own_is_never_looked_at_and_said():
    joined = join(policy(), [said("site", host("strange", opening("80"), at="198.18.0.1"))], NOW)
    assert joined.policy.hosts == ()
    (drift,) = joined.drifts
    assert (drift.kind, drift.why) == (DriftKind.COULD_NOT_TELL, SeenWhy.OUTSIDE_OWN_NETWORKS)
    assert (drift.host, drift.address) == ("strange", "198.18.0.1")


def test_a_host_that_is_nowhere_could_not_be_told():
    joined = join(policy(), [said("chef", HostExpectation("node7", openings=(opening("80"),)))], NOW)
    assert joined.policy.hosts == ()
    (drift,) = joined.drifts
    assert (drift.kind, drift.host) == (DriftKind.COULD_NOT_TELL, "node7")


def test_gateways_of_inventories_are_gateways_and_what_only_they_may_have_is_shut_on_others():
    restricted = ((PortRange(22, 22), Protocol.TCP),)
    joined = join(
        policy(host("web1", opening("20-30", WORLD, "vpn")), only_on_gateways=restricted),
        [
            said("chef", host("gw1", opening("22"), at="192.0.2.1", gateway=True)),
            said("site", host("db1", opening("5432", GATEWAYS), at="192.0.2.20")),
        ],
        NOW,
    )
    assert let_in(joined, "gw1", 22) == {WORLD}
    assert [let_in(joined, "web1", port) for port in (21, 22, 23)] == [{WORLD, "vpn"}, {"vpn"}, {WORLD, "vpn"}]
    assert kinds(joined.drifts) == [("inventories-disagree", "web1", 22)]
    assert [str(one) for one in joined.policy.networks[GATEWAYS].prefixes] == ["192.0.2.1/32"]
    database = joined.policy.host("db1")
    assert database is not None
    assert database.gateways == ("gw1",)


def test_open_to_gateways_where_there_is_none_is_said():
    joined = join(policy(), [said("site", host("db1", opening("5432", GATEWAYS)))], NOW)
    assert kinds(joined.drifts) == [("inventories-disagree", "db1", 5432)]


def test_a_policy_file_alone_is_what_it_was():
    alone = parse_policy(
        b"version: 1\nown_networks: [192.0.2.0/24]\nnetworks: {office: [198.51.100.0/24]}\nonly_on_gateways: [22/tcp]\n"
        b"roles: {base: {ports: {22/tcp: gateways, 80-90/tcp: world}}, way: {gateway: true, ports: {22/tcp: world}}}\n"
        b"hosts:\n  gw: {addresses: [192.0.2.1], names: [gw, gw.test], roles: [way]}\n  web: {roles: [base]}\n"
        b"  192.0.2.9: {roles: [base], ports: {85/tcp: {from: office, until: 2026-12-31}}}\n",
        "ports.yml",
    )
    assert join(alone, [], NOW) == Joined(alone)


# ------------------------------------------------------------------------------------------------ claims


def claimed(*openings: Opening, nodes: bool = True, own: PortPolicy | None = None, **more: object) -> Joined:
    claim = replace(host("web1", *openings), **more)  # type: ignore[arg-type]
    base = own or policy(host("web1", opening("443", must_answer=True), opening("22", "office"), roles=("web",)))
    return join(base, [said("other", claims=(claim,))], NOW, of_nodes=("other",) if nodes else ())


def test_a_node_that_widens_its_own_policy_is_no_pass_and_changes_nothing():
    joined = claimed(opening("443"), opening("22", origin=Location("chef:node[web1] normal")), opening("8080"))
    assert let_in(joined, "web1", 8080) == set()
    assert let_in(joined, "web1", 22) == {"office"}
    assert kinds(joined.drifts) == [("policy-widened", "web1", 22), ("policy-widened", "web1", 8080)]
    assert {one.level for one in joined.drifts} == {Level.HIGH}
    assert "opens 22/tcp to world (chef:node[web1] normal); policy says office" in joined.drifts[0].advice


def test_a_node_that_gives_itself_a_role_or_the_rank_of_a_gateway_widens_policy():
    joined = claimed(roles=("web", "bastion"), gateway=True)
    (drift,) = joined.drifts
    assert drift.kind is DriftKind.POLICY_WIDENED
    assert "roles bastion beside web" in drift.advice
    assert "is a gateway" in drift.advice


def test_an_opening_that_has_ended_is_no_widening_in_a_nodes_mouth():
    own = policy(host("web1", opening("8443", until=NOW)))
    assert kinds(claimed(opening("8443", until=NOW), own=own).drifts) == []
    assert [kind for kind, *_ in kinds(claimed(opening("8443", until=NOW + 1), own=own).drifts)] == ["policy-widened"]


def test_what_a_node_does_not_mention_says_nothing_and_what_it_shuts_does():
    assert claimed().drifts == ()
    assert kinds(claimed(opening("443", NOBODY)).drifts) == [("inventories-disagree", "web1", 443)]


def test_a_firewall_that_lets_in_more_or_shuts_what_must_answer_disagrees():
    joined = claimed(opening("22"), opening("8000-8100", "vpn"), nodes=False)
    assert kinds(joined.drifts) == [
        ("inventories-disagree", "web1", 22),
        ("inventories-disagree", "web1", 443),
        ("inventories-disagree", "web1", 8000),
    ]
    advice = {one.port: one.advice for one in joined.drifts}
    assert "other (some.yml:1) does not open 443/tcp to everybody" in advice[443]
    assert "opens 8000-8100/tcp to vpn" in advice[8000]
    assert claimed(opening("22", "floor"), opening("443"), nodes=False).drifts == ()


def test_a_firewall_of_which_not_all_could_be_read_shuts_nothing():
    base = policy(host("web1", opening("443", must_answer=True)))
    whole = said("fw", claims=(host("web1"),))
    assert kinds(join(base, [whole], NOW).drifts) == [("inventories-disagree", "web1", 443)]
    assert join(base, [replace(whole, claims_complete=False)], NOW).drifts == ()


@pytest.mark.parametrize(("addresses", "told"), [((), 0), (("192.0.2.1",), 1), (("192.0.2.1", "2001:db8:1::1"), 0)])
def test_a_ruleset_of_one_version_of_ip_shuts_nothing_where_a_host_has_the_other(addresses: tuple[str, ...], told: int):
    base = policy(replace(host("web1", opening("443", must_answer=True)), addresses=addresses, names=("web1",)))
    four = replace(said("fw", claims=(host("web1"),)), claims_versions=(4,))
    assert len(join(base, [four], NOW).drifts) == told


def test_an_opening_that_has_ended_allows_a_firewall_nothing():
    base = policy(host("web1", opening("443", until=NOW)))
    fw = said("fw", claims=(host("web1", opening("443")),))
    assert kinds(join(base, [fw], NOW).drifts) == [("inventories-disagree", "web1", 443)]
    assert join(base, [fw], NOW - 1).drifts == ()


def test_a_firewall_that_is_open_everywhere_is_a_few_drifts():
    sparse = [opening(str(port)) for port in range(100, 200, 2)]
    joined = claimed(opening("1-65535"), nodes=False, own=policy(host("web1", *sparse)))
    assert [one.port for one in joined.drifts] == [0, 1, 101, 103, 105, 107, 109, 111, 113]
    assert "43 more stretches of ports, 115, 117," in joined.drifts[0].advice


def test_the_firewalls_own_networks_are_known_by_their_prefixes():
    part = NamedNetwork("fw:198.51.100.0-25", (ip_network("198.51.100.0/25"),))
    base = policy(host("web1", opening("22", "office")))
    inside = said("fw", claims=(host("web1", opening("22", part.name)),), networks=(part,))
    assert join(base, [inside], NOW).drifts == ()
    wide = replace(part, prefixes=(ip_network("198.51.0.0/16"),))
    outside = replace(inside, networks=(wide,))
    assert kinds(join(base, [outside], NOW).drifts) == [("inventories-disagree", "web1", 22)]
    assert "fw:198.51.100.0-25" not in join(base, [inside], NOW).policy.networks


def test_a_node_is_who_it_is_called_and_a_firewall_is_where_it_is():
    base = policy(host("web1", opening("443")))
    other = host("else", opening("443"), at="192.0.2.10")
    (drift,) = join(base, [said("chef", claims=(other,))], NOW, of_nodes=("chef",)).drifts
    assert "chef knows else (some.yml:1), which lets others reach 443, and no policy names it" in drift.advice
    assert join(base, [said("aws", claims=(other,))], NOW).drifts == ()
    # What the inventory itself calls so is known by that name too.
    listed = said("chef", host("web1.example.org", opening("443")), claims=(host("web1.example.org", opening("22")),))
    assert kinds(join(base, [listed], NOW, of_nodes=("chef",)).drifts) == [("policy-widened", "web1", 22)]


def test_a_firewall_may_name_gateways_by_their_addresses():
    gateway = host("gw1", at="192.0.2.1", gateway=True)
    base = join(policy(gateway, host("web1", opening("22", GATEWAYS, must_answer=True))), [], NOW).policy
    one = NamedNetwork("fw:192.0.2.1-32", (ip_network("192.0.2.1/32"),))
    fw = said("fw", claims=(host("web1", opening("22", one.name)),), networks=(one,))
    assert join(base, [fw], NOW).drifts == ()
    other = replace(fw, networks=(replace(one, prefixes=(ip_network("192.0.2.2/32"),)),))
    (drift,) = join(base, [other], NOW).drifts
    assert "opens 22/tcp to fw:192.0.2.1-32" in drift.advice
    assert "does not open 22/tcp to everybody whom policy wants answered there, gateways" in drift.advice
    named = replace(gateway, addresses=(), names=("gw.test",))
    unknown = join(policy(named, host("web1", opening("22", GATEWAYS, must_answer=True))), [], NOW).policy
    assert join(unknown, [said("fw", claims=(host("web1"),))], NOW).drifts == ()


def test_a_firewall_shuts_only_what_could_come():
    both = NamedNetwork("office", (*OFFICE.prefixes, ip_network("2001:db8::/32")))
    base = policy(host("web1", opening("22", "office", must_answer=True)), networks={"office": both})
    four = NamedNetwork("fw:4", OFFICE.prefixes)
    fw = said("fw", claims=(host("web1", opening("22", "fw:4")),), networks=(four,))
    assert join(base, [fw], NOW).drifts == ()
    six = replace(base, hosts=(replace(base.hosts[0], addresses=("192.0.2.10", "2001:db8::10")),))
    assert kinds(join(replace(six, own_networks=(*OWN, *both.prefixes)), [fw], NOW).drifts) == [
        ("inventories-disagree", "web1", 22)
    ]


def test_a_host_that_only_a_claim_knows_is_said_and_not_looked_at():
    joined = join(policy(), [said("aws", claims=(host("i-1", opening("80")),))], NOW)
    assert joined.policy.hosts == ()
    assert kinds(joined.drifts) == [("inventories-disagree", "i-1", 0)]


# ------------------------------------------------------------------------------------------------ widening


def grown(before: HostExpectation, after: HostExpectation) -> tuple[Drift, ...]:
    return widened(policy(before), policy(after), NOW)


def test_every_widening_is_said_with_old_new_and_origin():
    old = opening("22", "floor", until=NOW + DAY, origin=Location("ports.yml", 4, 5))
    before = host("web1", old)
    for wider in (
        opening("22", "office", until=NOW + DAY),
        opening("22", "floor", "vpn", until=NOW + DAY),
        opening("22", "floor"),
        opening("22", "floor", until=NOW + 2 * DAY),
    ):
        (drift,) = grown(before, host("web1", replace(wider, origin=Location("chef:role[x]"))))
        assert (drift.kind, drift.port, drift.level) == (DriftKind.POLICY_WIDENED, 22, Level.HIGH)
        assert "it was floor until" in drift.advice
        assert "(ports.yml:4:5)" in drift.advice
        assert "(chef:role[x])" in drift.advice
    (more,) = grown(before, host("web1", old, opening("80")))
    assert (more.port, "it was nobody (some.yml:1)" in more.advice) == (80, True)
    (longer,) = grown(host("web1", opening("80-90")), host("web1", opening("80-99")))
    assert (longer.port, "91-99/tcp may be reached by world" in longer.advice) == (91, True)


def test_roles_and_gateways_are_widenings():
    before = host("web1", roles=("web",))
    (drift,) = grown(before, replace(before, roles=("web", "db"), gateway=True))
    assert "has the new roles db, it had web and is a gateway now" in drift.advice
    gateway = host("gw1", at="192.0.2.1", gateway=True)
    (moved,) = grown(gateway, replace(gateway, addresses=("192.0.2.1", "192.0.2.2")))
    assert "192.0.2.2" in moved.advice


def test_narrowing_and_renaming_are_none():
    before = host("web1", opening("1-100", "office", "vpn"), roles=("web", "db"), gateway=True)
    for after in (
        host("web1"),
        host("web1", opening("22", "floor")),
        host("web1", opening("22", "office", until=NOW + DAY)),
        host("web1", opening("22", NOBODY)),
        host("web1", opening("443", until=NOW)),
        host("renamed", opening("1-100", "office", "vpn")),
        host("web1", opening("1-100", "office"), opening("1-100", "vpn")),
    ):
        assert grown(before, after) == ()
    assert widened(policy(before), policy(), NOW) == ()
    bureau = {**NETWORKS, "bureau": NamedNetwork("bureau", OFFICE.prefixes)}
    renamed = policy(host("web1", opening("22", "bureau")), networks=bureau)
    assert widened(policy(host("web1", opening("22", "office"))), renamed, NOW) == ()


def test_a_host_that_takes_the_address_of_another_is_compared_with_both():
    before = policy(host("web1", opening("443")), host("db1", opening("5432", "office"), at="192.0.2.20"))
    taken = replace(before.hosts[0], addresses=("192.0.2.10", "192.0.2.20"))
    (drift,) = widened(before, policy(taken), NOW)
    assert (drift.host, drift.port) == ("web1", 443)


def test_what_had_ended_and_has_a_new_end_is_a_widening():
    (drift,) = grown(host("web1", opening("22", until=NOW - DAY)), host("web1", opening("22", until=NOW + DAY)))
    assert drift.port == 22


def test_a_network_that_grows_under_its_name_widens_every_opening_that_names_it():
    before = policy(host("web1", opening("22", "office"), opening("80", "vpn")))
    wide = NamedNetwork("office", (*OFFICE.prefixes, ip_network("198.18.0.0/15")))
    (drift,) = widened(before, replace(before, networks={**NETWORKS, "office": wide}), NOW)
    assert drift.port == 22
    assert "office is now 198.51.100.0/24, 198.18.0.0/15, it was 198.51.100.0/24" in drift.advice


def test_a_new_host_and_wider_own_networks_are_said():
    (drift,) = widened(policy(), policy(host("web1", opening("80"))), NOW)
    assert (drift.host, drift.level) == ("web1", Level.MEDIUM)
    assert widened(policy(), policy(host("web1")), NOW) == ()
    wide = policy(own_networks=(*OWN, ip_network("198.18.0.0/15")))
    (more,) = widened(policy(), wide, NOW)
    assert (more.host, more.address) == ("policy", "198.18.0.0/15")
    assert widened(wide, policy(), NOW) == ()


# ------------------------------------------------------------------------------------------------ whatever is said

SOURCES = st.lists(
    st.sampled_from(["office", "floor", "vpn", WORLD, GATEWAYS]), min_size=1, max_size=2, unique=True
).map(tuple)
OPENINGS = st.lists(
    st.builds(
        lambda first, length, sources, until, needed: Opening(
            PortRange(first, first + length), Protocol.TCP, sources, needed and sources != (NOBODY,), until=until
        ),
        st.integers(1, 6),
        st.integers(0, 3),
        SOURCES | st.just((NOBODY,)),
        st.sampled_from([0, NOW + DAY, NOW + 2 * DAY]),
        st.booleans(),
    ),
    max_size=3,
).map(tuple)
HOSTS = st.lists(
    st.builds(
        lambda at, openings, gateway: HostExpectation(f"h{at}", (f"192.0.2.{at}",), openings=openings, gateway=gateway),
        st.integers(1, 2),
        OPENINGS,
        st.booleans(),
    ),
    max_size=2,
    unique_by=lambda one: one.name,
).map(tuple)
INVENTORIES = st.lists(HOSTS, max_size=3).map(
    lambda hosts: [Expectations(f"inventory{at}", one) for at, one in enumerate(hosts)]
)
VANTAGES = [Vantage(name, name) for name in (*NETWORKS, WORLD, GATEWAYS)]
TIMES = (NOW, NOW + DAY)


def admitted(made: PortPolicy, hosts: tuple[HostExpectation, ...]) -> set[tuple[str, int, str, int]]:
    return {
        (one.name, port, vantage.name, at)
        for one in hosts
        for port in range(1, 10)
        for vantage in VANTAGES
        for at in TIMES
        if any(made.admits(o, vantage) for o in one.covering(port, Protocol.TCP) if not o.expired(at))
    }


def spoken_of(hosts: tuple[HostExpectation, ...]) -> set[tuple[str, int]]:
    return {(one.name, port) for one in hosts for port in range(1, 10) if one.covering(port, Protocol.TCP)}


@settings(max_examples=40)
@given(HOSTS, INVENTORIES)
def test_joining_admits_nobody_whom_an_inventory_that_speaks_of_the_port_does_not(
    own: tuple[HostExpectation, ...], inventories: list[Expectations]
):
    joined = join(policy(*own), inventories, NOW)
    found = admitted(joined.policy, joined.policy.hosts)
    by_file, of_file = admitted(joined.policy, own), spoken_of(own)
    assert {one for one in found if one[:2] in of_file} == by_file
    for one in inventories:
        theirs = admitted(joined.policy, one.hosts)
        spoken = spoken_of(one.hosts) - of_file
        assert {seen for seen in found if seen[:2] in spoken} <= theirs
    everybody = by_file.union(*(admitted(joined.policy, one.hosts) for one in inventories))
    assert found <= everybody


@settings(max_examples=40)
@given(HOSTS, INVENTORIES, HOSTS, st.booleans())
def test_a_claim_changes_nothing(
    own: tuple[HostExpectation, ...],
    inventories: list[Expectations],
    claims: tuple[HostExpectation, ...],
    nodes: bool,
):
    without = join(policy(*own), inventories, NOW)
    claiming = [*inventories, Expectations("a-claim", claims=claims)]
    with_claims = join(policy(*own), claiming, NOW, of_nodes=("a-claim",) if nodes else ())
    assert with_claims.policy == without.policy
    # What a claim allows beyond policy is always said.
    more = admitted(without.policy, claims) - admitted(without.policy, without.policy.hosts)
    assert not {one for one in more if one[3] == NOW} or with_claims.drifts


@settings(max_examples=40)
@given(HOSTS, INVENTORIES, st.randoms(use_true_random=False))
def test_the_order_of_inventories_does_not_matter(
    own: tuple[HostExpectation, ...], inventories: list[Expectations], random: object
):
    shuffled = list(inventories)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert join(policy(*own), shuffled, NOW) == join(policy(*own), inventories, NOW)
    # Nor does what they are called.
    renamed = [replace(one, inventory=name) for one, name in zip(inventories, ("z", "y", "x"), strict=False)]
    one, other = join(policy(*own), renamed, NOW).policy, join(policy(*own), inventories, NOW).policy
    assert admitted(one, one.hosts) == admitted(other, other.hosts)


@settings(max_examples=40)
@given(HOSTS, HOSTS)
def test_what_is_admitted_that_was_not_is_a_widening_and_nothing_else_is(
    before: tuple[HostExpectation, ...], after: tuple[HostExpectation, ...]
):
    old, new = policy(*before), policy(*after)
    more = admitted(new, new.hosts) - admitted(old, old.hosts)
    found = widened(old, new, NOW)
    assert {one[0] for one in more} <= {one.host for one in found}
    if {one.name for one in before} == {one.name for one in after}:
        assert {one.host for one in found if one.port} <= {one[0] for one in more} | _for_longer(old, new)


def _for_longer(old: PortPolicy, new: PortPolicy) -> set[str]:
    """Hosts where something holds longer than the times looked at tell apart."""
    late = NOW + 10 * DAY
    out = set()
    for one in new.hosts:
        was = old.host(one.name)
        for port in range(1, 10):
            for vantage in VANTAGES:
                ends = [
                    max((o.until or late for o in h.covering(port, Protocol.TCP) if old.admits(o, vantage)), default=0)
                    for h in (was, one)
                    if h is not None
                ]
                if ends[-1] > ends[0]:
                    out.add(one.name)
    return out


@pytest.mark.parametrize(
    ("levels", "counts"),
    [
        ((Level.INFORMATIONAL, None), None),
        ((None, Level.LOW), None),
        ((Level.LOW, Level.MEDIUM), Level.MEDIUM),
        ((Level.LOW, Level.CRITICAL), Level.CRITICAL),
        ((None, Level.CRITICAL), Level.CRITICAL),
    ],
)
def test_of_those_that_agree_on_a_port_one_alone_does_not_lower_its_level(
    levels: tuple[Level | None, Level | None], counts: Level | None
):
    both = [said(name, host("web1", opening("443", level=level))) for name, level in zip("ab", levels, strict=True)]
    joined = join(policy(), both, NOW)
    assert joined.drifts == ()
    assert [one.level for one in joined.policy.hosts[0].openings] == [counts]
