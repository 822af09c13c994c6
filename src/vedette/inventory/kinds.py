"""Every kind of inventory that a policy file may name under `inventories`: who reads it, and what it is.
Counterpart: `yaml.InventoryWords` has a key for each; `app.inventories` reads; docs/ports.md has a part for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from vedette.inventory.ansible import AnsibleWords, read_ansible
from vedette.inventory.aws import AwsWords, read_aws
from vedette.inventory.chef import ChefWords, read_chef
from vedette.inventory.firewall import FirewallWords, read_firewall
from vedette.model.clock import Clock
from vedette.model.ports import Expectations


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. words: its section in the policy file; read: words, name of the inventory, clock.

    paths: keys of files (a secret may lie in one), relative to the policy file. policy: its word is part of policy,
    which is not whole without it; else it only claims. of_nodes: what it claims hosts wrote about themselves.
    """

    words: type[BaseModel]
    read: Callable[[Any, str, Clock], Expectations]
    paths: tuple[str, ...]
    policy: bool
    of_nodes: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "ansible": Kind(AnsibleWords, read_ansible, ("inventory",), policy=True),
        "aws": Kind(AwsWords, read_aws, ("security_groups", "instances", "network_interfaces"), policy=False),
        "chef": Kind(ChefWords, read_chef, ("ca_file", "key"), policy=True, of_nodes=True),
        "firewall": Kind(FirewallWords, read_firewall, ("file",), policy=False),
    }
)
