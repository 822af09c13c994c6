"""A Chef server as an inventory: policy from roles, environments, policyfiles and data bags, nodes heard as witnesses.
Counterpart: `yaml` hands in the section of the policy file; `chef_run_lists` and `chef_nodes` know what Chef means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from vedette.inventory.chef_attributes import Said, plain_ports, read_said
from vedette.inventory.chef_nodes import Node, addresses, every_node, search_nodes
from vedette.inventory.chef_run_lists import Expanded, Has, RunLists, is_name, wrong_shape
from vedette.inventory.chef_words import ChefName, ChefWords, HostsBag, ListedHost
from vedette.inventory.port_words import HOST_NAME, HostName, read_openings
from vedette.model.clock import Clock
from vedette.model.errors import ConfigError, InventoryError, Location
from vedette.model.ports import NOBODY, Expectations, HostExpectation, InventoryProblem, Opening, effective
from vedette.model.reasons import InventoryReason
from vedette.text.documents import Path_
from vedette.text.escape import shorten, terminal

if TYPE_CHECKING:
    from vedette.inventory.chef_client import ChefClient

__all__ = ["ChefWords", "fetch_chef", "read_chef"]

Pause = Callable[[float], Awaitable[None]]

CLAIMED_OPENINGS, CLAIMED_ROLES = 200, 100
"""Of one node: what it says of itself costs it nothing, and must not cost us much."""
MOST_PROBLEMS = 200
_OF_ONE_HOST = {
    InventoryReason.WRONG_WORDS,
    InventoryReason.WRONG_SHAPE,
    InventoryReason.TOO_MANY,
    InventoryReason.UNKNOWN_NAME,
}
"""What is wrong with one host's words, and not with the server."""


class _BagItem(ListedHost):
    """A host in a data bag. `host` where its name cannot be an id."""

    id: ChefName
    host: HostName | None = None
    chef_type: str = Field("", exclude=True)
    data_bag: str = Field("", exclude=True)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A host by word of somebody who may say what it has."""

    words: ListedHost
    origin: str

    @property
    def has(self) -> Has:
        words = self.words
        run_list = tuple(f"role[{name}]" for name in words.roles)
        return Has(run_list, words.environment, words.policy_name, words.policy_group)


def read_chef(words: ChefWords, name: str, clock: Clock, *, pause: Pause = asyncio.sleep) -> Expectations:
    """`fetch_chef`, for those who are in no event loop."""
    found: list[Expectations] = []

    async def read() -> None:
        # Not handed back: putting SIGINT's handler back would write out all of what its task came to.
        found.append(await fetch_chef(words, name, clock, pause=pause))

    asyncio.run(read())
    return found[0]


async def fetch_chef(words: ChefWords, name: str, clock: Clock, *, pause: Pause = asyncio.sleep) -> Expectations:
    """What a Chef server says of hosts; InventoryError where policy cannot be read whole, and within `longest`.

    name: of the inventory, first in every origin (`chef:role[web] default_attributes.vedette.ports.22/tcp`). What nodes
    say of themselves is in `claims`, unless `node_writable: accept`; where they cannot be read that is a problem, and
    policy stands. Names of networks are not looked up: whoever joins inventories knows them. pause: waits so many
    seconds before a request is tried again.
    """
    try:
        from vedette.inventory.chef_client import ChefClient
    except ImportError as error:
        raise InventoryError(
            InventoryReason.NOT_INSTALLED,
            f"reading a Chef server needs the extra `hub` ({error.name} is not installed)",
            hint="pip install 'vedette[hub]'",
        ) from None
    read_at = clock.now()
    client = ChefClient(words, clock, pause)
    try:
        return await _Reading(words, name, client).expectations(read_at)
    finally:
        await client.close()


class _Reading:
    """One reading of one server."""

    def __init__(self, words: ChefWords, name: str, client: ChefClient) -> None:
        self.words = words
        self.name = name
        self.client = client
        self.run_lists = RunLists(words, name, client)
        self.given: dict[tuple[Has, int], Said] = {}
        self.problems: dict[tuple[InventoryReason, str], InventoryProblem] = {}
        self.problems_more = 0
        self.unheard = False
        self.in_part: dict[str, None] = {}

    async def expectations(self, read_at: int) -> Expectations:
        ends = asyncio.get_running_loop().time() + self.words.longest_seconds
        accepted = self.words.node_writable == "accept"
        try:
            async with asyncio.timeout_at(ends):
                listed = await self.listed()
                hosts = await self.hosts(listed, await self.nodes() if accepted else [])
        except TimeoutError:
            raise InventoryError(
                InventoryReason.SLOW,
                f"not read within {self.words.longest}",
                location=Location(self.words.url),
                hint="`longest` gives it more time",
            ) from None
        heard = not accepted and self.words.nodes != "none"
        claims = await self.claims(ends) if heard else ()
        problems = list(self.problems.values())
        if self.problems_more:
            place = Location(self.words.url)
            problems.append(InventoryProblem(InventoryReason.TOO_MANY, "more of the like", place, self.problems_more))
        return Expectations(
            inventory=self.name,
            hosts=hosts,
            claims=claims,
            read_at=read_at,
            problems=tuple(problems),
            claims_complete=not self.unheard,
            claims_in_part=tuple(self.in_part),
        )

    # ------------------------------------------------------------------------------ those who may say

    async def listed(self) -> dict[str, _Listed]:
        """Every host of `hosts` and of the data bag."""
        out = {name: _Listed(host, f"{self.name}:hosts.{name}") for name, host in self.words.hosts.items()}
        bag = self.words.hosts_bag
        if bag is None:
            return out
        for item in sorted(await self.run_lists.object(f"/data/{bag.bag}")):
            origin = f"{self.name}:data[{bag.bag}/{item}]"
            if not is_name(item):
                raise wrong_shape("is no name of Chef's", origin)
            said = self.bag_item(bag, item, await self.run_lists.object(f"/data/{bag.bag}/{item}"), origin)
            if said is None:
                continue
            name = said.host or said.id
            if name in out:
                raise self.wrong(f"{name} is described in {out[name].origin} too", origin, "say who it is once")
            out[name] = _Listed(said, origin)
        return out

    def bag_item(self, bag: HostsBag, item: str, found: dict[str, Any], origin: str) -> _BagItem | None:
        """One host of the data bag, None where the item has nothing at `at`."""
        said: Any = found
        for key in bag.at or ():
            said = said.get(key) if isinstance(said, dict) else None
        if said is None:
            return None
        if not isinstance(said, dict):
            raise self.wrong(f"{'.'.join(bag.at or ())} is not a mapping", origin)
        if any(isinstance(value, dict) and "encrypted_data" in value for value in said.values()):
            raise self.wrong("is encrypted", origin, "policy is no secret: keep it in a bag that is not encrypted")
        try:
            return _BagItem.model_validate({"id": item, **said})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        message, _, hint = str(first["msg"]).removeprefix("Value error, ").partition(" (hint: ")
        if first["type"] == "extra_forbidden":
            message, hint = "is not a key that stands here", "`hosts_bag.at` says where in an item our words stand"
        raise self.wrong(f"{path}: {message}" if path else message, origin, hint.removesuffix(")"))

    async def hosts(self, listed: Mapping[str, _Listed], nodes: list[Node]) -> tuple[HostExpectation, ...]:
        """The hosts that are listed; with nodes whose word is accepted, those too and what they add."""
        by_name = {node.name: node for node in nodes}
        out = []
        for name in dict.fromkeys([*listed, *by_name]):
            entry, node = listed.get(name), by_name.get(name)
            try:
                if node is not None and node.odd:
                    raise self.wrong(node.odd, f"{self.name}:node[{name}]")
                out.append(await self.host(name, entry, node))
            except InventoryError as error:
                if node is None or error.reason not in _OF_ONE_HOST:
                    raise
                # A node that writes nonsense loses its own word, and nobody else theirs.
                self.not_heard(error.reason, f"node {name}: {error.message}", error.location)
                nothing = _Listed(ListedHost(), f"{self.name}:node[{name}]")
                out.append(await self.host(name, entry or nothing, None))
        return tuple(out)

    async def host(self, name: str, entry: _Listed | None, node: Node | None) -> HostExpectation:
        """One host by word of its entry, and of its node where that is given."""
        has = entry.has if entry else node.has if node else Has()
        origin = entry.origin if entry else f"{self.name}:node[{name}]"
        words = entry.words if entry else ListedHost()
        limits = self.words.limits
        expanded = await self.run_lists.expand(has, limits.objects)
        if expanded.missing:
            raise self.wrong(f"there is no {expanded.missing[0]}", origin, reason=InventoryReason.UNKNOWN_NAME)
        if node:
            said = read_said((*expanded.layers, *node.layers), self.words.attributes, limits.openings)
        else:
            said = self.said(has, expanded, limits.openings)
        own = self.own(words, origin)
        at, names = addresses(words.addresses), tuple(dict.fromkeys(words.names))
        if not at and not names:
            at = node.addresses if node else addresses([name])
            # A name without a dot is Chef's alone; the policy file may know where it is.
            names = (name,) if not at and "." in name and HOST_NAME.fullmatch(name) else ()
        return HostExpectation(
            name=name,
            addresses=at,
            names=names,
            roles=tuple(expanded.roles),
            openings=effective(own, said.openings) if own else said.openings,
            gateway=words.gateway or said.gateway,
            origin=Location(origin),
        )

    def said(self, has: Has, expanded: Expanded, most: int) -> Said:
        """What comes of `has` alone; many hosts have the same."""
        if (has, most) not in self.given:
            self.given[has, most] = read_said(expanded.layers, self.words.attributes, most)
        return self.given[has, most]

    def own(self, words: ListedHost, origin: str) -> tuple[Opening, ...]:
        """What is said of the ports of one host beside what its roles say."""

        def at(path: Path_) -> Location:
            return Location(f"{origin}.ports.{path[0]}")

        try:
            mapping = read_openings(words.ports, at)
        except ConfigError as error:
            raise self.wrong(error.message, str(error.location), error.hint) from None
        opened = plain_ports(words.open_ports, self.words.attributes.open_from, Location(f"{origin}.open_ports"))
        closed = plain_ports(words.closed_ports, NOBODY, Location(f"{origin}.closed_ports"))
        return effective(closed, effective(mapping, opened))

    # ------------------------------------------------------------------------------ what nodes say

    async def nodes(self) -> list[Node]:
        """Every node that is asked for, each once."""
        one_by_one = self.words.nodes == "each" or self.words.node_writable == "accept"
        found = (every_node if one_by_one else search_nodes)(self.words, self.name, self.client)
        out = []
        async for node in found:
            if node is None:
                self.not_heard(InventoryReason.WRONG_SHAPE, "a node cannot be read, or is too large")
            else:
                out.append(node)
        return out

    async def claims(self, ends: float) -> tuple[HostExpectation, ...]:
        """What every node says of itself. That they cannot be heard is no reason to do without policy."""
        out: list[HostExpectation] = []
        try:
            async with asyncio.timeout_at(ends):
                for node in await self.nodes():
                    out.append(await self.claim(node))
        except TimeoutError:
            self.not_heard(InventoryReason.SLOW, f"not all nodes were read within {self.words.longest}")
        except InventoryError as error:
            self.not_heard(error.reason, f"nodes cannot be read: {error.message}", error.location)
        return tuple(out)

    async def claim(self, node: Node) -> HostExpectation:
        """One node's own word: what its run list and what its attributes come to."""
        origin = Location(f"{self.name}:node[{node.name}]")
        if node.odd:
            self.in_part[node.name] = None
            self.not_heard(InventoryReason.WRONG_SHAPE, f"node {node.name}: {node.odd}", origin)
        roles: tuple[str, ...] = ()
        parts: list[Said] = []
        try:
            expanded = await self.run_lists.expand(node.has, CLAIMED_ROLES)
            roles = tuple(expanded.roles)
            if expanded.missing:
                named = shorten(", ".join(expanded.missing), 100)
                self.problem(InventoryReason.UNKNOWN_NAME, f"node {node.name} has what does not exist: {named}", origin)
            said = self.said(node.has, expanded, CLAIMED_OPENINGS)
            # The role is no claim; that this host has it is.
            has = "policy" if node.has.policy_name else "run_list"
            given = tuple(replace(one, origin=Location(f"{origin} {has}: {one.origin}")) for one in said.openings)
            parts.append(replace(said, openings=given))
        except InventoryError as error:
            self.not_heard_of(node, error)
        try:
            parts.append(read_said(node.layers, self.words.attributes, CLAIMED_OPENINGS))
        except InventoryError as error:
            self.not_heard_of(node, error)
        # Attributes that a node saved repeat what came of its roles: said once, by the run list.
        openings = {
            (one.ports, one.protocol, one.sources, one.until): one for part in reversed(parts) for one in part.openings
        }
        return HostExpectation(
            name=node.name,
            addresses=node.addresses,
            names=node.names,
            roles=roles,
            openings=tuple(openings.values()),
            gateway=any(part.gateway for part in parts),
            origin=origin,
        )

    # ------------------------------------------------------------------------------ what is left out

    def not_heard_of(self, node: Node, error: InventoryError) -> None:
        """Take note of what is wrong with one node's word; what is wrong with the server is raised again."""
        if error.reason not in _OF_ONE_HOST:
            raise error
        self.in_part[node.name] = None
        self.not_heard(error.reason, f"node {node.name}: {error.message}", error.location)

    def not_heard(self, reason: InventoryReason, message: str, location: Location | None = None) -> None:
        """A problem on account of which claims are not complete."""
        self.unheard = True
        self.problem(reason, message, location)

    def problem(self, reason: InventoryReason, message: str, location: Location | None = None) -> None:
        message = shorten(terminal(message), 300)
        known = self.problems.get((reason, message))
        if known is None and len(self.problems) >= MOST_PROBLEMS:
            self.problems_more += 1
            return
        times = known.times + 1 if known else 1
        self.problems[reason, message] = InventoryProblem(reason, message, location or Location(self.words.url), times)

    def wrong(
        self, message: str, origin: str, hint: str = "", reason: InventoryReason = InventoryReason.WRONG_WORDS
    ) -> InventoryError:
        return InventoryError(reason, shorten(terminal(message), 300), location=Location(terminal(origin)), hint=hint)
