"""Proves the view into nftables, and that a published port passes no input chain.
Counterpart: parts/nft.py."""

from __future__ import annotations

import pytest
from tests.scenarios.parts import netns, nft
from tests.scenarios.parts.netns import Wire
from tests.scenarios.parts.nft import PublishedPort

pytestmark = pytest.mark.root

_RULES = """
table inet guard {
  set b4 { type ipv4_addr; flags timeout; counter; }
  set n6 { type ipv6_addr; flags interval, timeout; }
  counter seen { }
  chain %(hook)s {
    type filter hook %(hook)s priority %(priority)s; policy accept;
    counter name seen
    ip saddr @b4 counter drop
    ip6 saddr @n6 counter drop
  }
}
"""


def _guard(wire: Wire) -> nft.Table:
    table = nft.read_table(wire.server, "inet", "guard")
    assert table is not None
    return table


def test_sets_counters_and_rules_are_read_back(wire: Wire):
    assert nft.tables(wire.server) == []
    assert nft.read_table(wire.server, "inet", "guard") is None
    nft.load(wire.server, _RULES % {"hook": "input", "priority": "-10"})
    assert greeting_from(wire, netns.ATTACKER) == "refused"
    nft.load(wire.server, f"add element inet guard b4 {{ {netns.ATTACKER} timeout 1h }}")
    nft.load(wire.server, "add element inet guard n6 { 2001:db8:7::/64 timeout 1h }")

    assert greeting_from(wire, netns.ATTACKER) == "timeout"
    assert greeting_from(wire, netns.LEGITIMATE) == "refused"

    table = _guard(wire)
    (element,) = table.find(netns.ATTACKER)
    assert element.timeout == 3600
    assert element.expires is not None
    assert 3500 < element.expires <= 3600
    assert element.packets is not None
    assert element.packets > 0
    assert [one.value for one in table.sets["n6"]] == ["2001:db8:7::/64"]
    assert table.counters["seen"] > table.counted() >= element.packets
    assert table.chains["input"]["prio"] == -10


def greeting_from(wire: Wire, source: str) -> str:
    return nft.greeting(wire.world, source, netns.SERVER, 22, timeout=0.5)


def test_a_published_port_shows_who_got_through_and_ignores_input_chains(wire: Wire, published: PublishedPort):
    def get(source: str, host: str) -> str:
        return nft.greeting(wire.world, source, host, published.port, timeout=0.5)

    assert get(netns.ATTACKER, netns.SERVER) == netns.ATTACKER
    assert get(netns.LEGITIMATE6, netns.SERVER6) == netns.LEGITIMATE6

    nft.load(wire.server, _RULES % {"hook": "input", "priority": "-10"})
    nft.load(wire.server, f"add element inet guard b4 {{ {netns.ATTACKER} }}")
    assert get(netns.ATTACKER, netns.SERVER) == netns.ATTACKER

    nft.load(wire.server, "delete table inet guard")
    nft.load(wire.server, _RULES % {"hook": "prerouting", "priority": "raw"})
    nft.load(wire.server, f"add element inet guard b4 {{ {netns.ATTACKER} }}")
    assert get(netns.ATTACKER, netns.SERVER) == "timeout"
    assert get(netns.LEGITIMATE, netns.SERVER) == netns.LEGITIMATE
    assert _guard(wire).find(netns.ATTACKER)[0].packets
