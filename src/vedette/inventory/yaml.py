"""The port policy as one readable YAML file: who may reach which port of which host, and who answers for it.
Counterpart: `model.ports.PortPolicy` is what comes out; docs/ports.md and `vedette ports schema` describe the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from vedette.inventory.ansible import AnsibleWords
from vedette.inventory.aws import AwsWords
from vedette.inventory.chef_words import ChefWords
from vedette.inventory.firewall import FirewallWords
from vedette.inventory.port_words import (
    HOST_NAME,
    RESERVED,
    WORDS,
    Address,
    HostName,
    Name,
    PortKey,
    Ports,
    PortsOf,
    parse_port_key,
    read_openings,
)
from vedette.inventory.port_words import parse_range as parse_range
from vedette.inventory.port_words import parse_until as parse_until
from vedette.inventory.reading import parse_document, read_document, validated
from vedette.model.errors import ConfigError, Location
from vedette.model.ports import (
    ALL_PORTS,
    GATEWAYS,
    LOCAL_VANTAGE,
    WORLD,
    Attention,
    HostExpectation,
    NamedNetwork,
    Network,
    Opening,
    PortPolicy,
    PortRange,
    Protocol,
    Vantage,
    effective,
    joined,
)
from vedette.text.addresses import canonical, contains, parse_network
from vedette.text.documents import Document, Path_
from vedette.text.times import parse_duration, positive_duration

WIDEST_V4, WIDEST_V6 = 8, 16
"""Shorter prefixes than these are nobody's own network."""
_WORDS_OF_YAML = frozenset(["true", "false", "null", "yes", "no", "on", "off", "y", "n"])


def _network(text: str) -> str:
    parse_network(text)
    return text


def _own_network(text: str) -> str:
    found = parse_network(text)
    if found.prefixlen < (WIDEST_V4 if found.version == 4 else WIDEST_V6):
        raise ValueError(
            f"{text} is too wide to be one's own (hint: name the networks that are yours, /{WIDEST_V4} at most)"
        )
    return text


def _named_prefix(text: str) -> str:
    if parse_network(text).prefixlen == 0:
        raise ValueError(f"{text} is everybody (hint: write `from: {WORLD}`)")
    return text


HostKey = Annotated[str, StringConstraints(pattern=r"^(::|[A-Za-z0-9_])[A-Za-z0-9_.:-]{0,252}$")]
"""As `Name`, and an address that begins with colons."""
InventoryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A file is called after it."""


class _Part(BaseModel):
    model_config = WORDS


class RoleWords(_Part):
    """What every host of a role has."""

    ports: Ports = {}
    gateway: bool = Field(False, description="hosts of this role are gateways (bastions)")


class GroupWords(_Part):
    """What every host of a group has, roles included."""

    roles: list[Name] = []
    ports: Ports = {}


class HostWords(_Part):
    """One host. Without addresses and names, its key is the address or the name."""

    addresses: list[Address] = []
    names: list[HostName] = []
    roles: list[Name] = []
    groups: list[Name] = []
    ports: Ports = {}
    gateway: bool = False


class VantageWords(_Part):
    """A place to look from, and the network it stands in."""

    network: Name = WORLD
    agent: Name | Literal[""] = ""


class ProbeWords(_Part):
    """Which ports are looked at."""

    tcp: PortsOf | list[PortsOf] = "1-65535"
    udp: PortsOf | list[PortsOf] = []


class InventoryWords(_Part):
    """What else knows of hosts and ports, of one kind."""

    name: InventoryName
    stale_after: Annotated[str, AfterValidator(positive_duration)] = Field(
        "1h", description="how old the last that is known of it may get before that is an alert"
    )
    ansible: AnsibleWords | None = None
    aws: AwsWords | None = None
    chef: ChefWords | None = None
    firewall: FirewallWords | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> InventoryWords:
        if len(list(self.kinds())) != 1:
            raise ValueError(f"an inventory is of one kind (hint: {', '.join(KINDS)})")
        return self

    def kinds(self) -> Iterator[tuple[str, BaseModel]]:
        """The kinds that are given, with their words: after validation it is one."""
        for kind in KINDS:
            words = getattr(self, kind)
            if words is not None:
                yield kind, words


KINDS = tuple(name for name in InventoryWords.model_fields if name not in ("name", "stale_after"))


class PolicyWords(_Part):
    """A port policy, version 1. What it does not allow may answer nobody."""

    version: Literal[1]
    own_networks: Annotated[list[Annotated[str, AfterValidator(_own_network)]], Field(min_length=1)]
    networks: dict[Name, Annotated[list[Annotated[str, AfterValidator(_named_prefix)]], Field(min_length=1)]] = {}
    vantage: dict[Name, VantageWords] = {}
    only_on_gateways: list[PortKey] = Field([], description="ports that may be open to the world on gateways alone")
    probe: ProbeWords = ProbeWords()
    roles: dict[Name, RoleWords] = {}
    groups: dict[Name, GroupWords] = {}
    hosts: dict[HostKey, HostWords] = {}
    inventories: Annotated[list[InventoryWords], Field(max_length=256)] = Field(
        [], description="what else is asked, and joined with what stands here"
    )


@dataclass(frozen=True, slots=True)
class Inventory:
    """One entry of `inventories`. words: of its kind's class; stale_after: microseconds."""

    name: str
    kind: str
    words: BaseModel
    stale_after: int
    origin: Location


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What one file says itself, and whom it asks beside that. policy: not whole without the inventories."""

    policy: PortPolicy
    inventories: tuple[Inventory, ...] = ()


def schema() -> dict[str, Any]:
    """The JSON Schema of a port policy (draft 2020-12)."""
    generated = PolicyWords.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated}


def read_policy_file(path: Path) -> PolicyFile:
    """What a policy file says; ConfigError with file:line:column for the first thing that is wrong with it."""
    return _Reader(read_document(path, "port policy")).file()


def parse_policy_file(raw: bytes, file: str) -> PolicyFile:
    """What `raw` says; as `read_policy_file`."""
    return _Reader(parse_document(raw, file, "port policy")).file()


def read_policy(path: Path) -> PortPolicy:
    """As `read_policy_file`, of a file that is the whole policy: ConfigError where it names inventories."""
    return _whole(read_policy_file(path))


def parse_policy(raw: bytes, file: str) -> PortPolicy:
    """The policy in `raw`; as `read_policy`."""
    return _whole(parse_policy_file(raw, file))


def _whole(file: PolicyFile) -> PortPolicy:
    if file.inventories:
        raise ConfigError(
            f"asks the inventory {file.inventories[0].name}, which was not read: a part of a policy is none",
            location=file.inventories[0].origin,
        )
    return file.policy


@dataclass(frozen=True, slots=True)
class _Reader:
    """One file on its way to a policy: what pydantic cannot see, names that lead nowhere for example."""

    document: Document

    def file(self) -> PolicyFile:
        words = validated(PolicyWords, self.document)
        inventories = tuple(self.inventories(words.inventories))
        return PolicyFile(self.policy(words, whole=not inventories), inventories)

    def inventories(self, words: Iterable[InventoryWords]) -> Iterator[Inventory]:
        seen: set[str] = set()
        for at, one in enumerate(words):
            if one.name in seen:
                raise self.wrong(f"{one.name} is there twice", "inventories", at, "name", hint="take another name")
            seen.add(one.name)
            ((kind, section),) = one.kinds()
            yield Inventory(
                one.name, kind, section, parse_duration(one.stale_after), self.at("inventories", at, "name")
            )

    def policy(self, words: PolicyWords, *, whole: bool) -> PortPolicy:
        """What the file itself says. whole: no inventory adds to it, so that what depends on them can be judged."""
        own = tuple(parse_network(text) for text in words.own_networks)
        networks = {
            name: NamedNetwork(name, tuple(parse_network(text) for text in prefixes), self.at("networks", name))
            for name, prefixes in words.networks.items()
        }
        for name in networks:
            if name in RESERVED:
                raise self.wrong(f"{name} has a meaning of its own", "networks", name, hint="take another name")
        roles = {name: self.openings(role.ports, networks, "roles", name) for name, role in words.roles.items()}
        groups = {name: self.openings(group.ports, networks, "groups", name) for name, group in words.groups.items()}
        for name, group in words.groups.items():
            self.known(group.roles, roles, "role", "groups", name, "roles")
        hosts = [self.host(name, host, words, roles, groups, networks, own) for name, host in words.hosts.items()]
        self.apart(hosts)
        hosts = self.with_gateways(hosts, networks, whole)
        restricted = tuple(parse_port_key(key) for key in words.only_on_gateways)
        if whole:
            self.bastions(hosts, restricted)
        return PortPolicy(
            own_networks=own,
            hosts=tuple(hosts),
            networks=networks,
            vantages=self.vantages(words.vantage, networks) or (LOCAL_VANTAGE,),
            attention=Attention(_attention(words.probe.tcp), _attention(words.probe.udp)),
            only_on_gateways=restricted,
            origin=self.document.start,
        )

    def host(
        self,
        name: str,
        words: HostWords,
        policy: PolicyWords,
        roles: Mapping[str, tuple[Opening, ...]],
        groups: Mapping[str, tuple[Opening, ...]],
        networks: Mapping[str, NamedNetwork],
        own: tuple[Network, ...],
    ) -> HostExpectation:
        self.known(words.roles, roles, "role", "hosts", name, "roles")
        self.known(words.groups, groups, "group", "hosts", name, "groups")
        all_roles = list(
            dict.fromkeys([*words.roles, *(role for one in words.groups for role in policy.groups[one].roles)])
        )
        addresses, names = [canonical(text) or text for text in words.addresses], list(words.names)
        where: tuple[Path_, ...] = tuple(("hosts", name, "addresses", at) for at in range(len(addresses)))
        if not addresses and not names:
            where = (("hosts", name),)
            if found := canonical(name):
                addresses.append(found)
            elif HOST_NAME.fullmatch(name):
                names.append(name)
            else:
                raise self.wrong(f"{name} is neither address nor name", "hosts", name, hint="give it `addresses`")
        for address, path in zip(addresses, where, strict=False):
            if not contains(own, address):
                raise self.wrong(
                    f"{address} is outside own_networks: only what is one's own is looked at",
                    *path,
                    hint=_own_hint(own),
                )
        inherited = [one for role in all_roles for one in roles[role]]
        inherited += [one for group in words.groups for one in groups[group]]
        return HostExpectation(
            name=name,
            addresses=tuple(dict.fromkeys(addresses)),
            names=tuple(dict.fromkeys(names)),
            roles=tuple(all_roles),
            groups=tuple(words.groups),
            openings=effective(self.openings(words.ports, networks, "hosts", name), inherited),
            gateway=words.gateway or any(policy.roles[role].gateway for role in all_roles),
            origin=self.at("hosts", name),
        )

    def openings(self, ports: Ports, networks: Mapping[str, NamedNetwork], *path: str) -> tuple[Opening, ...]:
        sources = [*networks, *RESERVED]
        return read_openings(
            ports,
            lambda rest: self.at(*path, "ports", *rest),
            lambda names, rest: self.known(names, sources, "network", *path, "ports", *rest),
        )

    def vantages(self, words: Mapping[str, VantageWords], networks: Mapping[str, NamedNetwork]) -> tuple[Vantage, ...]:
        for name, one in words.items():
            self.known([one.network], [*networks, WORLD, GATEWAYS], "network", "vantage", name, "network")
        return tuple(Vantage(name, one.network, one.agent, self.at("vantage", name)) for name, one in words.items())

    def apart(self, hosts: Iterable[HostExpectation]) -> None:
        """No address belongs to two hosts: what is expected of it would depend on who asks."""
        seen: dict[str, HostExpectation] = {}
        for host in hosts:
            for text in (*host.addresses, *host.names):
                if text in seen:
                    raise ConfigError(
                        f"{text} belongs to {seen[text].name} too", location=host.origin, hint="one host, one entry"
                    )
                seen[text] = host

    def with_gateways(
        self, hosts: list[HostExpectation], networks: dict[str, NamedNetwork], whole: bool
    ) -> list[HostExpectation]:
        """Every host with the names of the gateways it admits; the network made of them is added."""
        gateways = [one for one in hosts if one.gateway]
        networks[GATEWAYS] = NamedNetwork(
            GATEWAYS, tuple(ip_network(address) for one in gateways for address in one.addresses), self.document.start
        )
        names = tuple(one.name for one in gateways)
        out = []
        for host in hosts:
            asked = next((one for one in host.openings if GATEWAYS in one.sources), None)
            if asked is not None and not gateways and whole:
                raise ConfigError(
                    "is open to gateways, and no host is one",
                    location=asked.origin,
                    hint="`gateway: true` on a host or role",
                )
            out.append(_replaced(host, names if asked is not None and not host.gateway else ()))
        return out

    def bastions(self, hosts: Iterable[HostExpectation], restricted: Iterable[tuple[PortRange, Protocol]]) -> None:
        for host in hosts:
            if host.gateway:
                continue
            for opening in host.openings:
                for ports, protocol in restricted:
                    apart = opening.ports.without(ports) == (opening.ports,)
                    if WORLD in opening.sources and opening.protocol is protocol and not apart:
                        raise ConfigError(
                            f"{ports}/{protocol.value} is open to the world on {host.name}, which is no gateway",
                            location=opening.origin,
                            hint=f"`from: {GATEWAYS}`, or make it a gateway",
                        )

    def known(self, asked: Iterable[str], there: Iterable[str], what: str, *path: str | int) -> None:
        names = list(there)
        for at, name in enumerate(asked):
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {close[0]}?" if close else f"{what}s: {', '.join(sorted(names)) or 'none'}"
                raise self.wrong(f"there is no {what} {name}", *path, at, hint=hint)

    def at(self, *path: str | int) -> Location:
        return self.document.at(*path)

    def wrong(self, message: str, *path: str | int, hint: str = "") -> ConfigError:
        return ConfigError(message, location=self.at(*path), hint=hint)


def _replaced(host: HostExpectation, gateways: tuple[str, ...]) -> HostExpectation:
    return HostExpectation(
        host.name,
        host.addresses,
        host.names,
        host.roles,
        host.groups,
        host.openings,
        host.gateway,
        gateways,
        host.origin,
    )


def _own_hint(own: Iterable[Network]) -> str:
    return f"own_networks: {', '.join(str(one) for one in own)}"


def _attention(ports: str | int | list[str | int]) -> tuple[PortRange, ...]:
    return joined(parse_range(str(one)) for one in (ports if isinstance(ports, list) else [ports]))


# ---------------------------------------------------------------------------------------------- writing


def policy_lines(policy: PortPolicy) -> Iterator[str]:
    """A policy as lines of the file that reads as it: one block a host, roles written out."""
    yield "version: 1"
    yield f"own_networks: [{', '.join(_quoted(str(one)) for one in policy.own_networks)}]"
    named = {name: one for name, one in policy.networks.items() if name not in RESERVED}
    if named:
        yield "networks:"
        for name, network in named.items():
            yield f"  {name}: [{', '.join(_quoted(str(one)) for one in network.prefixes)}]"
    attention = policy.attention
    if attention.tcp != (ALL_PORTS,) or attention.udp:
        yield "probe:"
        yield f"  tcp: [{', '.join(str(one) for one in attention.tcp)}]"
        yield f"  udp: [{', '.join(str(one) for one in attention.udp)}]"
    yield "hosts:"
    for host in policy.hosts:
        yield f"  {_quoted(host.name)}:"
        if host.addresses:
            yield f"    addresses: [{', '.join(_quoted(one) for one in host.addresses)}]"
        if host.names:
            yield f"    names: [{', '.join(_quoted(one) for one in host.names)}]"
        if host.gateway:
            yield "    gateway: true"
        yield "    ports:" if host.openings else "    ports: {}"
        for opening in host.openings:
            words = [
                f"from: [{', '.join(opening.sources)}]" if len(opening.sources) > 1 else f"from: {opening.sources[0]}"
            ]
            words += ["must_answer: true"] if opening.must_answer else []
            words += [f"owner: {_quoted(opening.owner)}"] if opening.owner else []
            words += [f"reason: {_quoted(opening.reason)}"] if opening.reason else []
            yield f"      {opening.ports}/{opening.protocol.value}: {{{', '.join(words)}}}"


def _quoted(text: str) -> str:
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*|[0-9]+\.[0-9.]+(/[0-9]+)?", text) and text.lower() not in _WORDS_OF_YAML:
        return text
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{escaped}"'
