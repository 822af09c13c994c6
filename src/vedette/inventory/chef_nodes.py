"""Nodes of a Chef server as they describe themselves: every word of it is written by the machine it is about.
Counterpart: `chef` hears them as witnesses, or, where that is accepted, as part of policy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vedette.inventory.chef_attributes import Layer, Precedence
from vedette.inventory.chef_run_lists import NO_ENVIRONMENT, Has, is_name
from vedette.inventory.chef_words import ChefWords
from vedette.inventory.port_words import HOST_NAME
from vedette.model.errors import InventoryError, Location
from vedette.model.reasons import InventoryReason
from vedette.text.addresses import canonical

if TYPE_CHECKING:
    from vedette.inventory.chef_client import ChefClient

_OF_NODE = {
    "default": Precedence.NODE_DEFAULT,
    "normal": Precedence.NORMAL,
    "override": Precedence.NODE_OVERRIDE,
    "automatic": Precedence.AUTOMATIC,
}
_ITS_OWN_FAULT = {
    InventoryReason.TOO_LARGE,
    InventoryReason.WRONG_SHAPE,
    InventoryReason.NOT_JSON,
    InventoryReason.FORBIDDEN,
}


@dataclass(frozen=True, slots=True)
class Node:
    """A node by its own word, its name apart. odd: what of it could not be understood, empty = nothing."""

    name: str
    has: Has = field(default_factory=Has)
    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = field(default=(), repr=False)
    odd: str = ""


async def search_nodes(words: ChefWords, name: str, client: ChefClient) -> AsyncIterator[Node | None]:
    """Nodes by partial search, each once; None for one that cannot be read at all. Its attributes are merged already.

    The index lags behind the nodes by a minute or so.
    """
    keys = {"run_list": ["run_list"], "environment": ["chef_environment"]}
    keys |= {one: [one] for one in ("policy_name", "policy_group", "ipaddress", "ip6address", "fqdn")}
    keys |= {key: list(path) for key, path in words.attributes.paths()}
    seen: set[str] = set()
    async for row in client.rows(words.search, keys, words.limits.nodes):
        said, url = row.get("data"), row.get("url")
        # A name in a row's data would be the node's own attribute; the URL is the server's word.
        node = url.rpartition("/")[2] if isinstance(url, str) else ""
        if not is_name(node) or not isinstance(said, dict):
            yield None
        elif node not in seen:
            seen.add(node)
            attributes: dict[str, Any] = {}
            for key, path in words.attributes.paths():
                _put(attributes, path, said.get(key))
            layer = Layer(Precedence.NORMAL, f"{name}:node[{node}]", attributes)
            yield _node(node, said, said, (layer,))


async def every_node(words: ChefWords, name: str, client: ChefClient) -> AsyncIterator[Node | None]:
    """Nodes one by one, as they are now; None for one that cannot be read at all."""
    index = await client.mapping("/nodes")
    if len(index) > words.limits.nodes:
        raise InventoryError(
            InventoryReason.TOO_MANY,
            f"there are {len(index)} nodes, {words.limits.nodes} are taken",
            location=Location(words.url),
            hint="`limits.nodes` takes more",
        )
    for node in sorted(index):
        if not is_name(node):
            yield None
            continue
        try:
            said = await client.mapping(f"/nodes/{node}")
        except InventoryError as error:
            # Deleted meanwhile, or kept from us by itself: so large, or closed to us by a node that owns its object.
            if error.reason is InventoryReason.NOT_FOUND:
                continue
            if error.reason not in _ITS_OWN_FAULT:
                raise
            yield Node(node, odd=error.message)
            continue
        parts = {kind: said[kind] if isinstance(said.get(kind), dict) else {} for kind in _OF_NODE}
        layers = tuple(Layer(_OF_NODE[kind], f"{name}:node[{node}] {kind}", part) for kind, part in parts.items())
        yield _node(node, {**said, "environment": said.get("chef_environment")}, parts["automatic"], layers)


def _node(name: str, said: Mapping[str, Any], ohai: Mapping[str, Any], layers: tuple[Layer, ...]) -> Node:
    """A node out of what was read of it; what has the wrong form counts as not said, and is told."""
    odd = ""
    run_list = said.get("run_list") or []
    if not isinstance(run_list, list) or not all(isinstance(item, str) for item in run_list):
        odd, run_list = "its run list is no list of text", []
    named = {"environment": NO_ENVIRONMENT, "policy_name": "", "policy_group": ""}
    for key in named:
        value = said.get(key)
        if isinstance(value, str) and is_name(value):
            named[key] = value
        elif value:
            odd = f"its {key} is no name"
    if not (named["policy_name"] and named["policy_group"]):
        named |= {"policy_name": "", "policy_group": ""}
    fqdn = ohai.get("fqdn")
    return Node(
        name=name,
        has=Has(tuple(run_list), **named),
        addresses=addresses([ohai.get("ipaddress"), ohai.get("ip6address")]),
        names=(fqdn,) if isinstance(fqdn, str) and HOST_NAME.fullmatch(fqdn) else (),
        layers=layers,
        odd=odd,
    )


def addresses(texts: Iterable[Any]) -> tuple[str, ...]:
    """Those of `texts` that are addresses, canonical, each once."""
    found = (canonical(text) for text in texts if isinstance(text, str))
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _put(attributes: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set `value` at `path`, making the mappings on the way."""
    if value is None:
        return
    for key in path[:-1]:
        inner = attributes.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        attributes = inner
    attributes[path[-1]] = value
