from __future__ import annotations

import pytest

from vedette.app.port_inside import own_host
from vedette.inventory.yaml import parse_policy

POLICY = parse_policy(
    b"""
version: 1
own_networks: [192.0.2.0/24, 127.0.0.0/8]
hosts:
  here: {addresses: [127.0.0.1]}
  web: {addresses: [192.0.2.1, 192.0.2.2]}
  db: {addresses: [192.0.2.3]}
  shop: {names: [shop.example.org]}
""",
    "p.yml",
)


@pytest.mark.parametrize(
    ("own", "name", "wanted"),
    [
        ({"127.0.0.1", "192.0.2.2"}, "db", "web"),
        ({"127.0.0.1", "192.0.2.3"}, "", "db"),
        ({"127.0.0.1", "10.0.0.1"}, "", "here"),
        ({"127.0.0.1", "10.0.0.1"}, "db", "db"),
        ({"127.0.0.1", "10.0.0.1"}, "shop.example.org", "shop"),
        ({"127.0.0.1", "10.0.0.1"}, "shop", "shop"),
        ({"192.0.2.9"}, "sho", None),
        (set(), "", None),
    ],
)
def test_which_host_of_a_policy_this_machine_is(own: set[str], name: str, wanted: str | None):
    found = own_host(POLICY, frozenset(own), name)
    assert (found.name if found else None) == wanted
