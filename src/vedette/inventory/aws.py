"""Security groups of AWS as an inventory: what the cloud's firewall lets in, as claims to be compared with policy.
Counterpart: `yaml` hands in the section of the policy file; `claims` compares. Files are what the AWS CLI prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from pydantic import BaseModel, Field, StringConstraints, model_validator

from vedette.inventory.admission import sum_of
from vedette.inventory.port_words import WORDS, HostName
from vedette.inventory.reading import read_trusted
from vedette.model.clock import Clock
from vedette.model.errors import InventoryError, Location
from vedette.model.ports import (
    ALL_PORTS,
    HIGHEST_PORT,
    WORLD,
    Expectations,
    HostExpectation,
    InventoryProblem,
    NamedNetwork,
    Network,
    Opening,
    PortRange,
    Protocol,
)
from vedette.model.reasons import InventoryReason
from vedette.text.addresses import canonical, parse_network
from vedette.text.escape import shorten, terminal

_LARGEST = 64 * 1024 * 1024
_PROTOCOLS: Mapping[str, tuple[Protocol, ...]] = {
    "-1": (Protocol.TCP, Protocol.UDP),
    "tcp": (Protocol.TCP,),
    "udp": (Protocol.UDP,),
    "6": (Protocol.TCP,),
    "17": (Protocol.UDP,),
}
GroupName = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class AwsWords(BaseModel):
    """Security groups, and which host has which of them."""

    model_config = WORDS

    security_groups: Annotated[str, Field(min_length=1)] = Field(
        description="what `aws ec2 describe-security-groups` printed"
    )
    instances: str = Field("", description="what `aws ec2 describe-instances` printed")
    network_interfaces: str = Field("", description="what `aws ec2 describe-network-interfaces` printed")
    hosts: dict[HostName, list[GroupName]] = Field(
        {}, description="groups (id or name) of hosts, where no file says which host has which"
    )
    name_tag: str = Field("Name", min_length=1, max_length=128, description="the tag that an instance is called by")

    @model_validator(mode="after")
    def _some_host(self) -> AwsWords:
        if not self.instances and not self.network_interfaces and not self.hosts:
            raise ValueError(
                "nothing says which host has which group (hint: `instances`, `network_interfaces` or `hosts`)"
            )
        return self


# ------------------------------------------------------------------------------------------------ what AWS prints


class _Range(msgspec.Struct, rename="pascal"):
    cidr_ip: str = ""
    cidr_ipv6: str = ""


class _Pair(msgspec.Struct, rename="pascal"):
    group_id: str = ""
    group_name: str = ""


class _PrefixList(msgspec.Struct, rename="pascal"):
    prefix_list_id: str = ""


class _Permission(msgspec.Struct, rename="pascal"):
    ip_protocol: str
    from_port: int | None = None
    to_port: int | None = None
    ip_ranges: list[_Range] = []
    ipv6_ranges: list[_Range] = []
    prefix_list_ids: list[_PrefixList] = []
    user_id_group_pairs: list[_Pair] = []


class _Group(msgspec.Struct, rename="pascal"):
    group_id: str
    group_name: str = ""
    ip_permissions: list[_Permission] = []


class _Page(msgspec.Struct, rename="pascal"):
    """What any of the files holds. next_token: there where the CLI was told to stop before the end."""

    next_token: str = msgspec.field(default="", name="NextToken")


class _Groups(_Page, rename="pascal", kw_only=True):
    security_groups: list[_Group]


class _Tag(msgspec.Struct, rename="pascal"):
    key: str = ""
    value: str = ""


class _Association(msgspec.Struct, rename="pascal"):
    public_ip: str = ""


class _Private(msgspec.Struct, rename="pascal"):
    private_ip_address: str = ""
    association: _Association | None = None


class _Six(msgspec.Struct, rename="pascal"):
    ipv6_address: str = ""


class _Attachment(msgspec.Struct, rename="pascal"):
    instance_id: str = ""


class _Interface(msgspec.Struct, rename="pascal"):
    network_interface_id: str = ""
    private_ip_address: str = ""
    private_ip_addresses: list[_Private] = []
    ipv6_addresses: list[_Six] = []
    association: _Association | None = None
    attachment: _Attachment | None = None
    groups: list[_Pair] = []
    tag_set: list[_Tag] = []

    def addresses(self) -> Iterator[str]:
        """Every address of it."""
        yield self.private_ip_address
        for one in self.private_ip_addresses:
            yield one.private_ip_address
            yield one.association.public_ip if one.association else ""
        yield self.association.public_ip if self.association else ""
        yield from (one.ipv6_address for one in self.ipv6_addresses)


class _Interfaces(_Page, rename="pascal", kw_only=True):
    network_interfaces: list[_Interface]


class _Instance(msgspec.Struct, rename="pascal"):
    instance_id: str
    private_ip_address: str = ""
    public_ip_address: str = ""
    ipv6_address: str = ""
    network_interfaces: list[_Interface] = []
    security_groups: list[_Pair] = []
    tags: list[_Tag] = []
    state: dict[str, Any] = {}


class _Reservation(msgspec.Struct, rename="pascal"):
    instances: list[_Instance] = []


class _Instances(_Page, rename="pascal", kw_only=True):
    reservations: list[_Reservation]


T = TypeVar("T", bound=_Page)


def _read(path: str, kind: type[T]) -> T:
    """A file the AWS CLI wrote; InventoryError where it is something else."""
    place = Location(path)
    raw = read_trusted(Path(path), _LARGEST)
    if len(raw) > _LARGEST:
        raise InventoryError(InventoryReason.TOO_LARGE, f"larger than {_LARGEST} bytes", location=place)
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise InventoryError(
            InventoryReason.WRONG_SHAPE, f"is not what the AWS CLI prints: {error}", location=place
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InventoryError(
            InventoryReason.NOT_JSON, f"is no JSON: {error}", location=place, hint="`--output json`"
        ) from None


# ------------------------------------------------------------------------------------------------ what it means


@dataclass(slots=True)
class _Host:
    """A host with the groups of all its interfaces: what any of them lets in reaches it."""

    name: str
    origin: Location
    addresses: dict[str, None] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)


def read_aws(words: AwsWords, name: str, clock: Clock) -> Expectations:
    """What security groups let in to each host, as claims of the inventory called `name`.

    Rules add up over all groups of a host. ICMP and other protocols without ports are left out. Prefix lists, and
    groups of which no host is known, cannot be resolved: they are problems, and the claims not complete.
    """
    reading = _Reading(words, name)
    read_at = clock.now()
    groups = {one.group_id: one for one in reading.file(words.security_groups, _Groups).security_groups}
    hosts = reading.hosts(groups)
    claims = tuple(reading.claim(host, groups, hosts) for host in hosts)
    return Expectations(
        name,
        networks=tuple(reading.networks.values()),
        claims=claims,
        read_at=read_at,
        problems=tuple(reading.problems.values()),
        claims_complete=not reading.problems,
    )


@dataclass(slots=True)
class _Reading:
    words: AwsWords
    name: str
    networks: dict[str, NamedNetwork] = field(default_factory=dict)
    problems: dict[tuple[InventoryReason, str], InventoryProblem] = field(default_factory=dict)

    def file(self, path: str, kind: type[T]) -> T:
        """As `_read`; that a file ends before what it is a list of is a problem."""
        found = _read(path, kind)
        if found.next_token:
            self._problem(
                InventoryReason.CUT, f"{path} ends before its end (NextToken): leave out --max-items and --no-paginate"
            )
        return found

    # ------------------------------------------------------------------------------------------ hosts

    def hosts(self, groups: Mapping[str, _Group]) -> list[_Host]:
        """Every host of the files and of `hosts`; those of one name are one."""
        out: dict[str, _Host] = {}
        ids: dict[str, str] = {}
        if self.words.instances:
            place = self.words.instances
            for reservation in self.file(place, _Instances).reservations:
                for one in reservation.instances:
                    if one.state.get("Name") in ("terminated", "shutting-down"):
                        continue
                    ids[one.instance_id] = called = self._called(one.tags, one.instance_id, out)
                    host = out.setdefault(called, _Host(called, Location(f"{place}:{one.instance_id}")))
                    own = [one.private_ip_address, one.public_ip_address, one.ipv6_address]
                    inner = [address for interface in one.network_interfaces for address in interface.addresses()]
                    self._add(host, (*own, *inner), one.security_groups)
                    for interface in one.network_interfaces:
                        self._add(host, (), interface.groups)
        if self.words.network_interfaces:
            place = self.words.network_interfaces
            for interface in self.file(place, _Interfaces).network_interfaces:
                instance = interface.attachment.instance_id if interface.attachment else ""
                own_id = instance or interface.network_interface_id
                called = ids.get(instance) or self._called(interface.tag_set if not instance else (), own_id, out)
                host = out.setdefault(called, _Host(called, Location(f"{place}:{own_id}")))
                self._add(host, interface.addresses(), interface.groups)
        by_name = {one.group_name: one.group_id for one in groups.values()}
        for called, asked in self.words.hosts.items():
            host = out.setdefault(called, _Host(called, Location(f"{self.name}:hosts.{called}")))
            self._add(host, (), [_Pair(by_name.get(one, one)) for one in asked])
        return list(out.values())

    def _called(self, tags: Iterable[_Tag], own_id: str, known: Mapping[str, _Host]) -> str:
        """What a host is called by: its tag, or its id where it has none that is a name, or that another has too."""
        tag = next((one.value for one in tags if one.key == self.words.name_tag), "")
        return tag if tag and len(tag) <= 253 and tag.isprintable() and tag not in known else own_id

    def _add(self, host: _Host, addresses: Iterable[str], groups: Iterable[_Pair]) -> None:
        for text in addresses:
            if text and (found := canonical(text)) is not None:
                host.addresses[found] = None
        host.groups |= dict.fromkeys(one.group_id for one in groups)

    # ------------------------------------------------------------------------------------------ claims

    def claim(self, host: _Host, groups: Mapping[str, _Group], hosts: list[_Host]) -> HostExpectation:
        """What a host's groups let in, together."""
        openings: dict[tuple[PortRange, Protocol, tuple[str, ...]], Opening] = {}
        for group_id in host.groups:
            group = groups.get(group_id)
            if group is None:
                self._problem(InventoryReason.UNKNOWN_NAME, f"group {group_id} of {host.name} is not in the file")
                continue
            for one in self._openings(group, hosts):
                openings.setdefault((one.ports, one.protocol, one.sources), one)
        return HostExpectation(host.name, tuple(host.addresses), openings=tuple(openings.values()), origin=host.origin)

    def _openings(self, group: _Group, hosts: list[_Host]) -> Iterator[Opening]:
        origin = Location(f"{self.words.security_groups}:{group.group_id}")
        for permission in group.ip_permissions:
            protocols = _PROTOCOLS.get(permission.ip_protocol.lower(), ())
            ports = self._ports(permission, group)
            sources = tuple(self._sources(permission, group, hosts)) if protocols and ports else ()
            if sources and ports is not None:
                for protocol in protocols:
                    yield Opening(
                        ports, protocol, sources, reason=shorten(terminal(group.group_name), 100), origin=origin
                    )

    def _ports(self, permission: _Permission, group: _Group) -> PortRange | None:
        """The ports of a permission; None where it has none (from AWS: -1 or nothing means all)."""
        first, last = permission.from_port, permission.to_port
        if permission.ip_protocol == "-1" or first is None or last is None or first == -1:
            return ALL_PORTS
        if not 0 <= first <= last <= HIGHEST_PORT:
            if permission.ip_protocol.lower() in _PROTOCOLS:
                self._problem(InventoryReason.WRONG_WORDS, f"{group.group_id}: ports {first}-{last}")
            return None
        return PortRange(max(first, 1), last) if last else None

    def _sources(self, permission: _Permission, group: _Group, hosts: list[_Host]) -> Iterator[str]:
        prefixes: list[Network] = []
        for text in (
            *(one.cidr_ip for one in permission.ip_ranges),
            *(one.cidr_ipv6 for one in permission.ipv6_ranges),
        ):
            try:
                prefixes.append(parse_network(text))
            except ValueError as error:
                self._problem(InventoryReason.WRONG_WORDS, f"{group.group_id}: {error}")
        together = sum_of(prefixes)
        if any(one.prefixlen == 0 for one in together):
            yield WORLD
        elif together:
            more = f"+{len(together) - 1}" if len(together) > 1 else ""
            yield self._network(f"{self.name}:{str(together[0]).replace('/', '-')}{more}", together, group)
        for listed in permission.prefix_list_ids:
            self._problem(
                InventoryReason.UNKNOWN_NAME,
                f"{group.group_id} lets in prefix list {listed.prefix_list_id}, which the file does not write out",
            )
        for pair in permission.user_id_group_pairs:
            at = [ip_network(address) for host in hosts if pair.group_id in host.groups for address in host.addresses]
            if at:
                yield self._network(f"{self.name}:{pair.group_id}", at, group)
            else:
                self._problem(
                    InventoryReason.UNKNOWN_NAME,
                    f"{group.group_id} lets in group {pair.group_id}, of which no host with an address is known",
                )

    def _network(self, called: str, prefixes: Iterable[Network], group: _Group) -> str:
        wanted = tuple(prefixes)
        names = (called, *(f"{called}.{count}" for count in range(2, len(self.networks) + 3)))
        name = next(one for one in names if one not in self.networks or self.networks[one].prefixes == wanted)
        place = Location(f"{self.words.security_groups}:{group.group_id}")
        self.networks.setdefault(name, NamedNetwork(name, wanted, place))
        return name

    def _problem(self, reason: InventoryReason, message: str) -> None:
        message = shorten(terminal(message), 300)
        place = Location(self.words.security_groups)
        known = self.problems.get((reason, message))
        times = known.times + 1 if known else 1
        self.problems[reason, message] = InventoryProblem(reason, message, place, times)
