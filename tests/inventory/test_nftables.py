from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.inventory.nftables import parse_nftables
from vedette.inventory.rulesets import Place, Ruleset, both, either, less, networks, size, spans
from vedette.inventory.verdicts import STRANGERS, fate, published, verdict
from vedette.model.errors import ConfigError
from vedette.model.ports import FirewallVerdict, Listener, Protocol

ACCEPTED, DROPPED, REJECTED = FirewallVerdict.ACCEPTED, FirewallVerdict.DROPPED, FirewallVerdict.REJECTED
LIMITED, UNKNOWN = FirewallVerdict.LIMITED_TO_SOURCES, FirewallVerdict.UNKNOWN
ETH0 = Place(frozenset(("eth0",)))

TCP22 = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}
ACCEPT, DROP = {"accept": None}, {"drop": None}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def listing(*rules: list[dict[str, Any]], policy: str = "drop", more: tuple[dict[str, Any], ...] = ()) -> bytes:
    """A table `inet filter` whose input chain has these rules."""
    chain = {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "prio": 0}
    objects: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"family": "inet", "name": "filter"}}]
    objects += [{"chain": {**chain, "policy": policy}}, *more]
    objects += [{"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": one}} for one in rules]
    return json.dumps({"nftables": objects}).encode()


def ruleset(*rules: list[dict[str, Any]], policy: str = "drop", more: tuple[dict[str, Any], ...] = ()) -> Ruleset:
    return parse_nftables(listing(*rules, policy=policy, more=more), "rules.json")


def of(rules: Ruleset, port: int = 22, address: str = "0.0.0.0", protocol: Protocol = Protocol.TCP) -> FirewallVerdict:
    return verdict(rules, Listener("web", address, port, protocol))[0]


def jumped(name: str, *rules: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    chain = {"chain": {"family": "inet", "table": "filter", "name": name}}
    return chain, *({"rule": {"family": "inet", "table": "filter", "chain": name, "expr": one}} for one in rules)


OFFICE = {"prefix": {"addr": "198.51.100.0", "len": 24}}
SADDR = payload("ip", "saddr")


def test_without_a_chain_everybody_gets_in_and_a_policy_is_named():
    assert of(Ruleset()) is ACCEPTED
    closed = ruleset()
    assert verdict(closed, Listener("web", "0.0.0.0", 22, Protocol.TCP)) == (DROPPED, "inet filter input: policy drop")
    assert of(ruleset(policy="accept")) is ACCEPTED


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([[TCP22, ACCEPT]], ACCEPTED),
        ([[match(payload("tcp", "dport"), 22, "!="), ACCEPT]], DROPPED),
        ([[match(payload("tcp", "dport"), {"set": [80, {"range": [20, 30]}]}), ACCEPT]], ACCEPTED),
        ([[match(payload("th", "dport"), 22), ACCEPT]], ACCEPTED),
        ([[match(payload("udp", "dport"), 22), ACCEPT]], DROPPED),
        ([[match(payload("tcp", "dport"), 1024, "<"), ACCEPT]], ACCEPTED),
        ([[match(meta("l4proto"), {"set": ["tcp", "udp"]}), ACCEPT]], ACCEPTED),
        ([[match(meta("nfproto"), "ipv6"), ACCEPT]], DROPPED),
        ([[match(meta("iif"), "lo"), ACCEPT]], DROPPED),
        ([[match(meta("iifname"), "lo", "!="), ACCEPT]], ACCEPTED),
        ([[match({"ct": {"key": "state"}}, ["established", "related"], "in"), ACCEPT]], DROPPED),
        ([[match({"ct": {"key": "state"}}, "new"), TCP22, ACCEPT]], ACCEPTED),
        ([[TCP22, {"reject": {"type": "tcp reset"}}]], REJECTED),
        ([[TCP22, {"limit": {"rate": 3, "per": "minute"}}, ACCEPT]], ACCEPTED),
        ([[TCP22, {"limit": {"rate": 3, "per": "minute", "inv": True}}, DROP], [ACCEPT]], ACCEPTED),
        ([[match(SADDR, OFFICE), ACCEPT]], LIMITED),
        ([[match(SADDR, OFFICE), DROP], [ACCEPT]], ACCEPTED),
        ([[match(SADDR, OFFICE, "!="), DROP], [ACCEPT]], LIMITED),
        ([[match(SADDR, {"prefix": {"addr": "0.0.0.0", "len": 0}}), ACCEPT]], ACCEPTED),
        ([[match(meta("mark"), 1), ACCEPT]], DROPPED),
        ([[{"counter": {}}, {"log": None}, TCP22, ACCEPT]], ACCEPTED),
        ([[match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), ACCEPT]], ACCEPTED),
        ([[match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False), DROP], [ACCEPT]], ACCEPTED),
        (
            [[match({"&": [payload("tcp", "flags"), ["fin", "syn", "rst", "ack"]]}, "syn"), TCP22, ACCEPT]],
            ACCEPTED,
        ),
        # What is not understood is never a guess, but only where it matters.
        ([[match({"meta": {"key": "skuid"}}, 0), ACCEPT]], UNKNOWN),
        ([[match({"meta": {"key": "skuid"}}, 0), DROP]], DROPPED),
        ([[TCP22, {"xt": {"type": "match", "name": "geoip"}}, ACCEPT]], UNKNOWN),
        ([[TCP22, {"a statement of the year 2040": {}}, ACCEPT]], UNKNOWN),
        ([[TCP22, {"queue": {"num": 1}}]], UNKNOWN),
        ([[match(meta("iifname"), "eth0"), TCP22, ACCEPT]], UNKNOWN),
        ([[match(payload("ip", "daddr"), "192.0.2.1"), ACCEPT]], UNKNOWN),
        ([[match(payload("tcp", "dport"), "@nowhere"), ACCEPT]], UNKNOWN),
    ],
)
def test_what_becomes_of_a_strangers_first_packet_to_port_22(
    rules: list[list[dict[str, Any]]], wanted: FirewallVerdict
):
    assert of(ruleset(*rules)) is wanted


def test_an_interface_counts_once_it_is_known_which_one_strangers_come_in_by():
    rules = ruleset([match(meta("iifname"), "eth*"), TCP22, ACCEPT])
    assert of(replace(rules, place=ETH0)) is ACCEPTED
    assert of(replace(rules, place=Place(frozenset(("wan0",))))) is DROPPED
    assert of(replace(rules, place=Place(frozenset(("eth0", "wan0"))))) is UNKNOWN


def test_a_rule_about_one_address_is_decided_for_that_address():
    rules = ruleset([match(payload("ip", "daddr"), "192.0.2.1"), TCP22, ACCEPT])
    everywhere = Listener("web", "0.0.0.0", 22, Protocol.TCP)
    assert verdict(rules, everywhere, "192.0.2.1")[0] is ACCEPTED
    assert verdict(rules, everywhere, "192.0.2.2")[0] is DROPPED
    assert of(rules, address="192.0.2.1") is ACCEPTED
    own = replace(rules, place=Place(addresses=frozenset(("192.0.2.1", "127.0.0.1"))))
    assert verdict(own, everywhere)[0] is ACCEPTED


def test_a_chain_that_is_jumped_to_comes_back_and_one_gone_to_does_not():
    sub = jumped("sub", [match(payload("tcp", "dport"), 80), ACCEPT])
    jump = ruleset([{"jump": {"target": "sub"}}], [TCP22, ACCEPT], more=sub)
    goto = ruleset([{"goto": {"target": "sub"}}], [TCP22, ACCEPT], more=sub)
    assert (of(jump, 80), of(jump, 22)) == (ACCEPTED, ACCEPTED)
    assert (of(goto, 80), of(goto, 22)) == (ACCEPTED, DROPPED)
    back = ruleset([TCP22, {"jump": {"target": "sub"}}], [ACCEPT], more=jumped("sub", [{"return": None}], [DROP]))
    assert of(back) is ACCEPTED


def test_chains_that_jump_in_a_circle_are_not_followed_for_ever():
    circle = jumped("a", [{"jump": {"target": "b"}}]) + jumped("b", [{"jump": {"target": "a"}}])
    assert of(ruleset([{"jump": {"target": "a"}}], [ACCEPT], more=circle)) is UNKNOWN


def test_sets_and_maps_are_looked_into():
    place = {"family": "inet", "table": "filter"}
    named = {"set": {**place, "name": "ok", "type": "ipv4_addr", "elem": [{"elem": {"val": "10.0.0.1", "timeout": 9}}]}}
    pairs = {"set": {**place, "name": "pairs", "elem": [{"concat": ["10.1.1.1", 22]}]}}
    rules = ruleset([match(SADDR, "@ok"), ACCEPT], more=(named,))
    found, text = verdict(rules, Listener("web", "0.0.0.0", 22, Protocol.TCP))
    assert (found, text) == (LIMITED, "inet filter input: ip saddr @ok accept [from 10.0.0.1/32]")
    both_sides = {"concat": [SADDR, payload("tcp", "dport")]}
    rules = ruleset([match(both_sides, "@pairs"), ACCEPT], more=(pairs,))
    assert (of(rules, 22), of(rules, 80)) == (LIMITED, DROPPED)
    vmap = {"vmap": {"key": payload("tcp", "dport"), "data": {"set": [[22, ACCEPT], [{"range": [80, 90]}, DROP]]}}}
    rules = ruleset([vmap], policy="accept")
    assert (of(rules, 22), of(rules, 85), of(rules, 91)) == (ACCEPTED, DROPPED, ACCEPTED)
    assert verdict(rules, Listener("w", "::", 85, Protocol.TCP))[1] == "inet filter input: tcp dport 80-90 drop"


def test_a_drop_before_routing_wins_over_an_accept_behind_it():
    chain = {"family": "ip", "table": "raw", "name": "pre", "type": "filter", "hook": "prerouting", "prio": -300}
    early = (
        {"table": {"family": "ip", "name": "raw"}},
        {"chain": {**chain, "policy": "accept"}},
        {"rule": {"family": "ip", "table": "raw", "chain": "pre", "expr": [TCP22, DROP]}},
    )
    rules = ruleset([ACCEPT], more=early)
    assert (of(rules), of(rules, address="::")) == (DROPPED, ACCEPTED)
    assert of(rules, address="127.0.0.1") is DROPPED


def nat(*rules: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    chain = {"family": "ip", "table": "nat", "name": "pre", "type": "nat", "hook": "prerouting", "prio": -100}
    made = ({"rule": {"family": "ip", "table": "nat", "chain": "pre", "expr": one}} for one in rules)
    return {"table": {"family": "ip", "name": "nat"}}, {"chain": {**chain, "policy": "accept"}}, *made


def test_a_translated_port_passes_the_forward_chain_and_no_input_chain():
    dnat = {"dnat": {"addr": "10.88.0.2", "port": 80}}
    more = nat([match(payload("tcp", "dport"), 8080), dnat])
    rules = ruleset(more=more)
    assert [(one.target, one.target_port) for one in published(rules, Protocol.TCP, 8080, 4)] == [("10.88.0.2", 80)]
    assert list(published(rules, Protocol.TCP, 8080, 6)) == []
    assert (of(rules, 8080), of(rules, 80)) == (ACCEPTED, DROPPED)
    forward = {"family": "inet", "table": "filter", "name": "fwd", "type": "filter", "hook": "forward", "prio": 0}
    to_bridge = [match(meta("oifname"), "br0"), match(payload("tcp", "dport"), 80), ACCEPT]
    closed = ruleset(
        more=(
            *more,
            {"chain": {**forward, "policy": "drop"}},
            {"rule": {"family": "inet", "table": "filter", "chain": "fwd", "expr": to_bridge}},
        )
    )
    assert of(closed, 8080) is UNKNOWN
    routes = ((ip_network("10.88.0.0/16"), "br0"), (ip_network("0.0.0.0/0"), "eth0"))
    assert of(replace(closed, place=Place(routes=routes)), 8080) is ACCEPTED
    elsewhere = ((ip_network("10.88.0.0/24"), "br1"), *routes)
    assert of(replace(closed, place=Place(routes=elsewhere)), 8080) is DROPPED


def test_translation_by_a_map_and_to_the_host_itself():
    entries = {"set": [[8443, {"concat": ["10.88.0.2", 443]}], [8444, "10.88.0.3"]]}
    mapped = {"dnat": {"addr": {"map": {"key": payload("tcp", "dport"), "data": entries}}}}
    rules = ruleset(
        [TCP22, ACCEPT], more=nat([mapped], [match(payload("tcp", "dport"), 2222), {"redirect": {"port": 22}}])
    )
    found = [
        (one.port, one.target, one.target_port)
        for port in (8443, 8444, 8445)
        for one in published(rules, Protocol.TCP, port, 4)
    ]
    assert found == [(8443, "10.88.0.2", 443), (8444, "10.88.0.3", 8444)]
    assert (of(rules, 2222), of(rules, 2223)) == (ACCEPTED, DROPPED)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"nftables": 1}', b'{"nftables": [{"chain": {"hook": []}}]}', b"table ip filter {"]
)
def test_what_is_no_ruleset_is_refused_with_its_file_and_a_hint(raw: bytes):
    with pytest.raises(ConfigError, match=r"rules\.json.*nft -j list ruleset"):
        parse_nftables(raw, "rules.json")


WORDS = (
    *("match", "left", "right", "op", "payload", "protocol", "field", "meta", "key", "set", "range", "concat", "vmap"),
    *("data", "accept", "jump", "target", "dnat", "addr", "port", "ct", "fib", "flags", "&", "limit", "inv", "xt"),
    *("type", "elem", "val"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70_000) | st.sampled_from(["tcp", "@ok", "10.0.0.0/8", "\x1b[2J", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(["match", "vmap", "dnat", "jump", "set", "limit"]), JSON, max_size=1)))
def test_whatever_stands_in_a_rule_it_is_read_or_refused(expression: list[dict[str, Any]]):
    said = ""
    try:
        said = of(ruleset([*expression, ACCEPT])).value
    except ConfigError as error:
        said = str(error)
    assert said in [one.value for one in FirewallVerdict] or said.startswith("rules.json: ")


PAIRS = st.lists(
    st.tuples(st.integers(0, 90), st.integers(0, 9)).map(lambda one: (one[0], one[0] + one[1])), max_size=6
)


@settings(max_examples=60)
@given(PAIRS, PAIRS)
def test_spans_are_sets_of_numbers(one: list[tuple[int, int]], other: list[tuple[int, int]]):
    def numbers(pairs: Any) -> set[int]:
        return {number for first, last in pairs for number in range(first, last + 1)}

    left, right = spans(one), spans(other)
    for made, wanted in (
        (both(left, right), numbers(one) & numbers(other)),
        (either(left, right), numbers(one) | numbers(other)),
        (less(left, right), numbers(one) - numbers(other)),
    ):
        assert numbers(made) == wanted
        assert size(made) == len(wanted)
        assert made == spans(made)


def test_sources_are_named_as_prefixes():
    rules = ruleset([match(SADDR, {"range": ["10.0.0.0", "10.0.0.2"]}), ACCEPT])
    assert [str(one) for one in networks(fate(rules, Protocol.TCP, 22, 4).admitted(), 4)] == [
        "10.0.0.0/31",
        "10.0.0.2/32",
    ]


def test_thousands_of_blocked_addresses_leave_the_port_open_to_the_rest():
    rules = ruleset(
        *([match(SADDR, f"10.{number >> 8}.{number & 255}.7"), DROP] for number in range(0, 2000, 2)), [TCP22, ACCEPT]
    )
    found = fate(rules, Protocol.TCP, 22, 4)
    assert found.verdict()[0] is ACCEPTED
    assert size(STRANGERS[4]) - size(found.admitted()) == 1000


def test_strangers_come_in_where_the_default_routes_lead():
    inner = (ip_network("172.17.0.0/16"), "docker0")
    routes = ((ip_network("0.0.0.0/0"), "eth0"), (ip_network("::/0"), "wan0"), inner, (ip_network("::/0"), "lo"))
    place = Place.of(["192.0.2.1"], routes)
    assert (place.arriving, place.addresses) == ({"eth0", "wan0"}, {"192.0.2.1"})
    assert [place.leads_to(one) for one in ("172.17.0.2", "8.8.8.8", "::1", "x")] == ["docker0", "eth0", "wan0", ""]
    assert Place.of([], [inner]).arriving == {"docker0"}
    assert Place().leads_to("8.8.8.8") == ""


def test_a_block_list_of_prefixes_as_our_own_is_leaves_the_port_open_to_the_rest() -> None:
    masked = {"&": [payload("ip6", "saddr"), "ffff:ffff:ffff:ffff::"]}
    for elements in ([], ["2001:db8:1::"], [{"elem": {"val": "2001:db8:2::", "timeout": 3600}}]):
        blocked = {"set": {"family": "inet", "table": "filter", "name": "v6_64", "type": "ipv6_addr", "elem": elements}}
        rules = ruleset([match(masked, "@v6_64"), DROP], [TCP22, ACCEPT], more=(blocked,))
        assert of(rules) is ACCEPTED
        assert of(rules, address="::") is ACCEPTED
    everybody = ruleset([match({"&": [payload("ip6", "saddr"), "::"]}, "::"), DROP], [TCP22, ACCEPT])
    assert of(everybody, address="::") is DROPPED
    crooked = ruleset([match({"&": [payload("ip6", "saddr"), "ff00:ffff::"]}, "2001:db8::"), DROP], [TCP22, ACCEPT])
    assert of(crooked, address="::") is UNKNOWN


def test_chains_that_jump_on_and_on_are_followed_so_far_and_no_further(monkeypatch: pytest.MonkeyPatch):
    jumps = [[{"jump": {"target": f"c{at + 1}"}}] for at in range(14)]
    more = [one for at, jump in enumerate(jumps) for one in jumped(f"c{at}", *([jump] * 20))]
    rules = ruleset([{"jump": {"target": "c0"}}], [{"accept": None}], more=(*more, *jumped("c14")))
    monkeypatch.setattr("vedette.inventory.verdicts.MOST_STEPS", 1_000)
    said, why = verdict(rules, Listener("h", "0.0.0.0", 22, Protocol.TCP))
    assert (said, "rules" in why) == (FirewallVerdict.UNKNOWN, True)
    # What is dropped before that is dropped.
    first = [match(payload("tcp", "dport"), 22), {"drop": None}]
    rules = ruleset(first, [{"jump": {"target": "c0"}}], more=(*more, *jumped("c14")))
    assert of(rules) is FirewallVerdict.DROPPED
    assert of(rules, port=23) is FirewallVerdict.UNKNOWN
