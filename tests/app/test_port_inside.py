from __future__ import annotations

from ipaddress import ip_network

import pytest

from vedette.app.port_inside import own_host, place_of
from vedette.inventory.yaml import parse_policy
from vedette.sources.ports.inside import Space
from vedette.system.namespaces import NetworkNamespace

POLICY = parse_policy(
    b"""
version: 1
own_networks: [192.0.2.0/24, 127.0.0.0/8]
hosts:
  here: {addresses: [127.0.0.1]}
  web: {addresses: [192.0.2.1, 192.0.2.2]}
  db: {addresses: [192.0.2.3]}
""",
    "p.yml",
)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({"127.0.0.1", "192.0.2.2"}, "web"),
        ({"127.0.0.1", "192.0.2.3"}, "db"),
        ({"127.0.0.1"}, "here"),
        ({"192.0.2.9"}, None),
        (set(), None),
    ],
)
def test_which_host_of_a_policy_this_machine_is(own: set[str], wanted: str | None):
    found = own_host(POLICY, frozenset(own))
    assert (found.name if found else None) == wanted


def test_strangers_come_in_where_the_default_routes_lead():
    inner = (ip_network("172.17.0.0/16"), "docker0")
    routes = ((ip_network("0.0.0.0/0"), "eth0"), (ip_network("::/0"), "wan0"), inner, (ip_network("::/0"), "lo"))
    space = Space(NetworkNamespace(1, ""), (), frozenset(("192.0.2.1",)), routes)
    place = place_of(space)
    assert place.arriving == {"eth0", "wan0"}
    assert place.leads_to("172.17.0.2") == "docker0"
    assert place.leads_to("8.8.8.8") == "eth0"
    assert place_of(Space(NetworkNamespace(1, ""), (), frozenset(), (inner,))).arriving == {"docker0"}
