"""Ports: what policy expects of hosts, what was seen of them, and where the two part.
Counterpart: `inventory` reads expectations, `sources.ports` looks and judges; `app` and `cli` bring them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType

from vedette.model.errors import Location
from vedette.model.levels import Level
from vedette.model.reasons import InventoryReason

Network = IPv4Network | IPv6Network

WORLD = "world"
"""The source that every address stands in."""
NOBODY = "nobody"
"""The source that no address stands in: the port may be open on the host, and nothing may reach it from elsewhere."""
GATEWAYS = "gateways"
"""The source made of the addresses of every host that is a gateway (bastion)."""
HIGHEST_PORT = 65_535
NOWHERE = Location("")


class Protocol(StrEnum):
    """What is spoken over IP; `network.transport` in ECS."""

    TCP = "tcp"
    UDP = "udp"


class PortState(StrEnum):
    """What one look at one port said."""

    OPEN = "open"
    CLOSED = "closed"
    """The host answered that nothing listens (reset, or ICMP port unreachable for UDP)."""
    FILTERED = "filtered"
    """The host lives, and something keeps this port from answering, or answers in its stead."""
    UNKNOWN = "unknown"
    """Could not tell; never a pass."""


class SeenWhy(StrEnum):
    """What a port's state was concluded from."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    """No answer to any of the attempts, while the address answered others."""
    HOST_UNREACHABLE = "host-unreachable"
    NETWORK_UNREACHABLE = "network-unreachable"
    PROHIBITED = "prohibited"
    """An administrative refusal (ICMP prohibited, or the firewall of the vantage itself)."""
    NO_ANSWER_AT_ALL = "no-answer-at-all"
    """Nothing of any kind came from the address: down, or silent to everybody."""
    NAME_UNRESOLVED = "name-unresolved"
    LOCAL_LIMIT = "local-limit"
    """The vantage ran out of something (ports, descriptors, buffers) or has no way of that family."""
    ANSWERS_EVERYTHING = "answers-everything"
    OUTSIDE_OWN_NETWORKS = "outside-own-networks"
    NO_TOOL = "no-tool"
    """The program that could tell (nmap) is not there, or failed."""
    NOT_PERMITTED = "not-permitted"
    """The vantage may not look in that way: packets of one's own (SYN, UDP) are for root."""
    NO_RESPONSE = "no-response"
    """UDP: neither data nor an error; open and filtered cannot be told apart."""
    NOT_PROBED = "not-probed"


class TargetCondition(StrEnum):
    """What an address as a whole is like from one vantage."""

    ANSWERS = "answers"
    DOWN = "down"
    """No evidence of life: could not tell."""
    UNRESOLVED = "unresolved"
    ANSWERS_EVERYTHING = "answers-everything"
    """Random high ports accept: a tarpit, a load balancer of a provider, a transparent proxy."""
    REFUSED = "refused"
    """Not ours to probe: outside the networks declared as one's own."""


class DriftKind(StrEnum):
    """In what way policy, the inside view and the outside view disagree."""

    OPEN_NOT_ALLOWED = "open-not-allowed"
    MUST_ANSWER = "must-answer"
    """A service that must be up does not answer where it may be reached from."""
    ALLOWED_BUT_CLOSED = "allowed-but-closed"
    """A hole nobody uses; no service was promised."""
    LISTENING_BUT_FILTERED = "listening-but-filtered"
    OPEN_WITHOUT_LISTENER = "open-without-listener"
    """Reachable from outside, and nothing here listens: something in front answers."""
    ONE_VANTAGE_ONLY = "one-vantage-only"
    """Vantages of the same standing see different things."""
    OPENING_EXPIRED = "opening-expired"
    COULD_NOT_TELL = "could-not-tell"
    COULD_NOT_TELL_TOO_LONG = "could-not-tell-too-long"
    INVENTORIES_DISAGREE = "inventories-disagree"
    POLICY_WIDENED = "policy-widened"
    ANSWERS_EVERYTHING = "answers-everything"


DRIFT_LEVELS: Mapping[DriftKind, Level] = MappingProxyType(
    {
        DriftKind.OPEN_NOT_ALLOWED: Level.HIGH,
        DriftKind.MUST_ANSWER: Level.HIGH,
        DriftKind.ALLOWED_BUT_CLOSED: Level.INFORMATIONAL,
        DriftKind.LISTENING_BUT_FILTERED: Level.LOW,
        DriftKind.OPEN_WITHOUT_LISTENER: Level.MEDIUM,
        DriftKind.ONE_VANTAGE_ONLY: Level.MEDIUM,
        DriftKind.OPENING_EXPIRED: Level.HIGH,
        DriftKind.COULD_NOT_TELL: Level.LOW,
        DriftKind.COULD_NOT_TELL_TOO_LONG: Level.HIGH,
        DriftKind.INVENTORIES_DISAGREE: Level.MEDIUM,
        DriftKind.POLICY_WIDENED: Level.HIGH,
        DriftKind.ANSWERS_EVERYTHING: Level.MEDIUM,
    }
)
"""The level of each kind by default; `judge` lowers open-not-allowed by one where the world does not reach the port."""


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports from `first` to `last`, both of them in it; 1-65535."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last <= HIGHEST_PORT:
            raise ValueError(f"ports run from 1 to {HIGHEST_PORT}, the lower first: {self.first}-{self.last}")

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def without(self, other: PortRange) -> tuple[PortRange, ...]:
        """What is left of this range outside `other`: none, one or two ranges."""
        if other.last < self.first or self.last < other.first:
            return (self,)
        left = ((self.first, other.first - 1), (other.last + 1, self.last))
        return tuple(PortRange(first, last) for first, last in left if first <= last)


ALL_PORTS = PortRange(1, HIGHEST_PORT)


def joined(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """The same ports as ranges that are sorted and apart."""
    out: list[PortRange] = []
    for one in sorted(ranges):
        if out and one.first <= out[-1].last + 1:
            out[-1] = PortRange(out[-1].first, max(out[-1].last, one.last))
        else:
            out.append(one)
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Opening:
    """One allowance: these ports of one protocol may be reached from `sources`, and nothing not allowed may be.

    sources: names of networks, or WORLD, GATEWAYS, or NOBODY alone. must_answer: a service that has to be up.
    until: microseconds UTC, the end of a temporary opening; 0 = none. Past it the opening allows nothing, and
    what still answers is `opening-expired`. origin: where it was written (for other inventories the item's name
    as file). level: of a drift on it, None = the kind's own.
    """

    ports: PortRange
    protocol: Protocol
    sources: tuple[str, ...]
    must_answer: bool = False
    owner: str = ""
    reason: str = ""
    until: int = 0
    level: Level | None = None
    origin: Location = NOWHERE

    def expired(self, now: int) -> bool:
        """Whether its end lies at or before `now` (microseconds UTC)."""
        return bool(self.until) and self.until <= now


@dataclass(frozen=True, slots=True)
class HostExpectation:
    """What is expected of one host. Closed world: what no opening covers may answer nobody.

    addresses: canonical addresses. names: to be resolved, each to all its addresses. openings: those in effect
    here, see `effective`. gateway: a bastion. gateways: names of the hosts one goes through to reach this one.
    """

    name: str
    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    openings: tuple[Opening, ...] = ()
    gateway: bool = False
    gateways: tuple[str, ...] = ()
    origin: Location = NOWHERE

    def covering(self, port: int, protocol: Protocol) -> tuple[Opening, ...]:
        """The openings that speak of this port, expired ones too."""
        return tuple(one for one in self.openings if one.protocol is protocol and port in one.ports)


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """Prefixes under one name."""

    name: str
    prefixes: tuple[Network, ...]
    origin: Location = NOWHERE


@dataclass(frozen=True, slots=True)
class Vantage:
    """A place to look from. network: the named network it stands in, or WORLD.

    agent: name of the host whose agent looks; empty = the machine that runs the check.
    """

    name: str
    network: str = WORLD
    agent: str = ""
    origin: Location = NOWHERE


LOCAL_VANTAGE = Vantage("local")
"""Where a policy names no vantage: here, counted as the world."""


@dataclass(frozen=True, slots=True)
class Attention:
    """What is looked at: port ranges of each protocol, sorted and apart."""

    tcp: tuple[PortRange, ...] = (ALL_PORTS,)
    udp: tuple[PortRange, ...] = ()


@dataclass(frozen=True, slots=True)
class PortPolicy:
    """What one inventory, or several joined, expects. own_networks: the only targets that may be probed."""

    own_networks: tuple[Network, ...]
    hosts: tuple[HostExpectation, ...] = ()
    networks: Mapping[str, NamedNetwork] = field(default_factory=dict)
    vantages: tuple[Vantage, ...] = (LOCAL_VANTAGE,)
    attention: Attention = field(default_factory=Attention)
    only_on_gateways: tuple[tuple[PortRange, Protocol], ...] = ()
    origin: Location = NOWHERE

    def host(self, name: str) -> HostExpectation | None:
        """The host called `name`, or that has this address or name to resolve."""
        for one in self.hosts:
            if name == one.name:
                return one
        return next((one for one in self.hosts if name in one.addresses or name in one.names), None)

    def vantage(self, name: str) -> Vantage | None:
        """The vantage called `name`."""
        return next((one for one in self.vantages if one.name == name), None)

    def admits(self, opening: Opening, vantage: Vantage) -> bool:
        """Whether `opening` lets one who stands at `vantage` in (its end apart)."""
        if WORLD in opening.sources:
            return True
        if vantage.network in opening.sources:
            return True
        standing = self.networks.get(vantage.network)
        if standing is None or not standing.prefixes:
            return False
        allowed = [
            prefix for name in opening.sources if name in self.networks for prefix in self.networks[name].prefixes
        ]
        return all(any(_within(prefix, around) for around in allowed) for prefix in standing.prefixes)


@dataclass(frozen=True, slots=True)
class InventoryProblem:
    """Something an inventory says that is no part of its expectations. times: how often the like was met."""

    reason: InventoryReason
    message: str
    location: Location = NOWHERE
    times: int = 1

    def __str__(self) -> str:
        text = f"{self.location}: {self.message}" if self.location.file else self.message
        return f"{text} ({self.times} times)" if self.times > 1 else text


@dataclass(frozen=True, slots=True)
class Expectations:
    """What one inventory says of hosts, before inventories are joined.

    inventory: its name in the policy file, for origins and findings. hosts: what those who own policy say. claims:
    what hosts say of themselves (a node's own attributes) or what a firewall lets through: compared with policy,
    never a part of it. read_at: microseconds UTC when it was read at its source; stale: why this is the last that
    was known and not what holds now, empty = it is fresh. problems: what was left out of it, and why.
    claims_complete: whether every claim could be read; where not, one that is missing says nothing, nor does what is
    missing in those of hosts in `claims_in_part`. claims_versions: the versions of IP that claims speak of.
    """

    inventory: str
    hosts: tuple[HostExpectation, ...] = ()
    networks: tuple[NamedNetwork, ...] = ()
    claims: tuple[HostExpectation, ...] = ()
    read_at: int = 0
    stale: str = ""
    problems: tuple[InventoryProblem, ...] = ()
    claims_complete: bool = True
    claims_in_part: tuple[str, ...] = ()
    claims_versions: tuple[int, ...] = (4, 6)


def _within(prefix: Network, around: Network) -> bool:
    if isinstance(prefix, IPv4Network) and isinstance(around, IPv4Network):
        return prefix.subnet_of(around)
    if isinstance(prefix, IPv6Network) and isinstance(around, IPv6Network):
        return prefix.subnet_of(around)
    return False


def effective(own: Iterable[Opening], inherited: Iterable[Opening]) -> tuple[Opening, ...]:
    """The openings in effect on a host: its own, and of roles and groups what its own say nothing about.

    Roles and groups add up; a host's own word on a port replaces theirs, so that it can also be stricter.
    """
    mine = tuple(own)
    out = list(mine)
    for opening in inherited:
        rest: tuple[PortRange, ...] = (opening.ports,)
        for other in mine:
            if other.protocol is opening.protocol:
                rest = tuple(left for one in rest for left in one.without(other.ports))
        out += [replace(opening, ports=ports) for ports in rest]
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one port from one vantage. at: microseconds UTC. attempts: connections tried."""

    host: str
    address: str
    port: int
    protocol: Protocol
    state: PortState
    vantage: str
    at: int
    attempts: int = 1
    why: SeenWhy = SeenWhy.TIMEOUT
    service: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at one address from one vantage: 65,535 ports without as many objects.

    asked: the ranges looked at. `rest` (with rest_why) is the state of every port asked that has no observation
    of its own. condition other than `answers` makes every state one of `unknown`. started/ended: microseconds
    UTC. connections: attempts made; answers: how many of them got one.
    """

    host: str
    address: str
    protocol: Protocol
    vantage: str
    started_at: int
    ended_at: int
    asked: tuple[PortRange, ...]
    rest: PortState
    rest_why: SeenWhy
    observations: tuple[Observation, ...] = ()
    condition: TargetCondition = TargetCondition.ANSWERS
    connections: int = 0
    answers: int = 0

    def observed(self, port: int) -> Observation | None:
        """What was seen of `port`, or None where it was not asked for."""
        for one in self.observations:
            if one.port == port:
                return one
        if not any(port in ports for ports in self.asked):
            return None
        return Observation(
            self.host, self.address, port, self.protocol, self.rest, self.vantage, self.ended_at, 1, self.rest_why
        )

    def ports_in(self, state: PortState) -> set[int]:
        """Every port asked that was seen in `state`, by an observation of its own or as one of the rest."""
        found = {one.port for one in self.observations if one.state is state}
        if self.rest is state:
            apart = {one.port for one in self.observations}
            found |= {port for asked in self.asked for port in range(asked.first, asked.last + 1)} - apart
        return found


class FirewallVerdict(StrEnum):
    """What the host's own firewall does with a connection to a listener."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"
    REJECTED = "rejected"
    LIMITED_TO_SOURCES = "limited-to-sources"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, or a port published into a container, as the host itself sees it.

    address: where it is bound, `0.0.0.0` and `::` = everywhere (dual: `::` that takes IPv4 too). namespace: of
    the network, empty = the host's own. since: microseconds UTC, 0 = not known. published: reached through DNAT.
    device: the only one it listens on, empty = any.
    """

    host: str
    address: str
    port: int
    protocol: Protocol
    dual: bool = False
    process: str = ""
    pid: int = 0
    user: str = ""
    unit: str = ""
    package: str = ""
    since: int = 0
    namespace: str = ""
    published: bool = False
    firewall: FirewallVerdict = FirewallVerdict.UNKNOWN
    firewall_rule: str = ""
    device: str = ""


class UnreadWhy(StrEnum):
    """What an inside view lacks."""

    SOCKETS = "sockets"
    """The host's own sockets."""
    NAMESPACE = "namespace"
    """A network namespace that could not be entered, or a process of which it is not known in which it lives."""
    PROCESS = "process"
    """A process whose sockets could not be read (another user's): a listener of its has no process."""
    HOLDER = "holder"
    """A listener that no readable process holds: of the kernel, or of one that ended meanwhile."""
    FIREWALL = "firewall"
    """A ruleset that could not be read: what it does with connections is not known."""
    TRANSLATION = "translation"
    """Ports that are published into containers, all of them or some."""


@dataclass(frozen=True, slots=True)
class InsideView:
    """What one host said of its own sockets. complete: whether every namespace could be read.

    addresses: of the host's own network namespace, canonical; a look at any other address of it was translated on
    the way. unread: how often what could not be read.
    """

    host: str
    at: int
    listeners: tuple[Listener, ...] = ()
    complete: bool = True
    addresses: frozenset[str] = frozenset()
    unread: Mapping[UnreadWhy, int] = field(default_factory=dict)

    @property
    def knows_own_ports(self) -> bool:
        """Whether nothing answers here on ports of the host's own addresses that are not listed.

        More than that every namespace was read is not needed: what is elsewhere is reached by translation.
        """
        lacking = self.unread.keys() & {UnreadWhy.SOCKETS, UnreadWhy.TRANSLATION}
        return self.complete or (bool(self.unread) and not lacking)


@dataclass(frozen=True, slots=True)
class Drift:
    """One disagreement; a condition: it is over when a later judgement has none of this `key`.

    port 0: of the address or host as a whole. expected: what policy wants seen from there, None where policy
    wants nothing in particular. opening: the allowance it is about. listener: who listens, where that is known.
    """

    kind: DriftKind
    level: Level
    host: str
    address: str
    port: int
    protocol: Protocol
    vantage: str
    expected: PortState | None
    seen: PortState
    why: SeenWhy
    advice: str
    at: int = 0
    opening: Opening | None = None
    listener: Listener | None = None

    @property
    def key(self) -> tuple[str, str, str, int, str, str]:
        """What makes it the same condition again: kind, host, address, port, protocol, vantage."""
        return (self.kind.value, self.host, self.address, self.port, self.protocol.value, self.vantage)
