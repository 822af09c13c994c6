"""A host's packet filter in one small model, whichever program wrote it: chains on hooks, conditions, verbs.
Counterpart: `nftables` and `iptables` read it from text; `verdicts` walks a connection through it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address, ip_network, summarize_address_range
from itertools import chain
from operator import itemgetter

from vedette.model.ports import Network, Protocol
from vedette.text.addresses import parse

Spans = tuple[tuple[int, int], ...]
"""Numbers (ports, addresses of one version) from first to last, both in it; sorted and apart."""
EMPTY: Spans = ()
_FEW = 8
_first, _last = itemgetter(0), itemgetter(1)
ALL: Mapping[int, Spans] = {4: ((0, 2**32 - 1),), 6: ((0, 2**128 - 1),)}


def spans(pairs: Iterable[tuple[int, int]]) -> Spans:
    """The same numbers, sorted and apart."""
    out: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)


def both(one: Spans, other: Spans) -> Spans:
    """What is in one and in the other."""
    if one == other:
        return one
    if len(one) < len(other):
        one, other = other, one
    out = []
    for first, last in other:
        # One of the two is mostly a single address or network, the other what thousands of rules left.
        for at in range(*_touching(one, first, last)):
            out.append((max(one[at][0], first), min(one[at][1], last)))
    return tuple(out)


def either(*several: Spans) -> Spans:
    """What is in any of them."""
    filled = [one for one in several if one]
    return spans(chain.from_iterable(filled)) if len(filled) > 1 else filled[0] if filled else EMPTY


def less(one: Spans, other: Spans) -> Spans:
    """What is in one and not in the other."""
    if one == other:
        return EMPTY
    if len(other) > _FEW:
        return _less_many(one, other)
    for first, last in other:
        begin, end = _touching(one, first, last)
        if begin < end:
            ends = ((one[begin][0], first - 1), (last + 1, one[end - 1][1]))
            one = (*one[:begin], *((low, high) for low, high in ends if low <= high), *one[end:])
    return one


def _touching(one: Spans, first: int, last: int) -> tuple[int, int]:
    """From which to before which of them have a number from `first` to `last`."""
    begin = bisect_left(one, first, key=_last)
    return begin, max(bisect_right(one, last, key=_first), begin)


def _less_many(one: Spans, other: Spans) -> Spans:
    out, j = [], 0
    for first, last in one:
        while j < len(other) and other[j][1] < first:
            j += 1
        at = j
        while at < len(other) and other[at][0] <= last:
            if first < other[at][0]:
                out.append((first, other[at][0] - 1))
            first = other[at][1] + 1
            at += 1
        if first <= last:
            out.append((first, last))
    return tuple(out)


def size(one: Spans) -> int:
    """How many numbers."""
    return sum(last - first + 1 for first, last in one)


def address_span(text: str) -> tuple[int, tuple[int, int]] | None:
    """Version and span of `10.0.0.1`, `10.0.0.0/8`, `10.0.0.0/255.0.0.0` or `10.0.0.1-10.0.0.9`; None for others."""
    try:
        first, dash, last = text.partition("-")
        if dash:
            low, high = ip_address(first), ip_address(last)
            return (
                (low.version, (int(low), int(high))) if low.version == high.version and int(low) <= int(high) else None
            )
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    return network.version, (int(network.network_address), int(network.broadcast_address))


def networks(one: Spans, version: int) -> Iterator[Network]:
    """The prefixes that make up these addresses."""
    kind = type(ip_network("0.0.0.0/0" if version == 4 else "::/0").network_address)
    for first, last in one:
        yield from summarize_address_range(kind(first), kind(last))


class Field(StrEnum):
    """What of a connection a condition looks at."""

    FAMILY = "family"
    PROTOCOL = "protocol"
    SOURCE = "source"
    DESTINATION = "destination"
    SOURCE_PORT = "source-port"
    DESTINATION_PORT = "destination-port"
    INPUT_DEVICE = "input-device"
    OUTPUT_DEVICE = "output-device"
    STATE = "state"
    """Of connection tracking: a first packet is `new`."""
    STATUS = "status"
    DESTINATION_TYPE = "destination-type"
    MARK = "mark"
    """Zero, where no rule sets one."""


@dataclass(frozen=True, slots=True)
class Known:
    """A condition whose outcome for a first packet is known already: never `established`, within any rate limit."""

    holds: bool


@dataclass(frozen=True, slots=True)
class Unread:
    """A condition that is not understood: what depends on it cannot be told."""

    text: str


@dataclass(frozen=True, slots=True)
class Named:
    """One of `names`; of devices one that ends in `*` stands for all that begin so."""

    field: Field
    names: frozenset[str]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Numbered:
    """A port or an address within `spans`; version: of addresses, 0 = none."""

    field: Field
    spans: Spans
    negated: bool = False
    version: int = 0


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of several rows, each of which holds when all its conditions do."""

    rows: tuple[tuple[Condition, ...], ...]
    negated: bool = False


Condition = Known | Unread | Named | Numbered | AnyOf


class Verb(StrEnum):
    """What a rule does with what meets its conditions."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    TRANSLATE = "translate"
    """DNAT, or redirection to the host itself."""
    UNREAD = "unread"
    """Handed to something whose answer cannot be known (a queue, a proxy)."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. chain: where a jump leads. address, port: of a translation; "" = the host itself, 0 = the same port."""

    conditions: tuple[Condition, ...]
    verb: Verb
    text: str
    chain: str = ""
    address: str = ""
    port: int = 0


class Hook(StrEnum):
    """Where in the kernel's path a base chain sits."""

    INGRESS = "ingress"
    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Base:
    """What makes a chain one that packets come through. type: filter, nat, route. devices: of an ingress chain."""

    hook: Hook
    priority: int
    type: str = "filter"
    accepts: bool = True
    devices: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order; base: None where it is only jumped to."""

    name: str
    rules: tuple[Rule, ...] = ()
    base: Base | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Chains by name. family: ip, ip6, inet, netdev, bridge, arp; writer: the program whose text it was read from."""

    family: str
    name: str
    chains: Mapping[str, Chain] = field(default_factory=dict)
    writer: str = "nft"


@dataclass(frozen=True, slots=True)
class Place:
    """What the ruleset does not say and its meaning hangs on. Empty = not known.

    arriving: devices that strangers come in by. addresses: of the host itself, canonical. routes: which device
    leads to a network.
    """

    arriving: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    routes: tuple[tuple[Network, str], ...] = ()

    @classmethod
    def of(cls, addresses: Iterable[str], routes: Iterable[tuple[Network, str]]) -> Place:
        """The place of a namespace with these: strangers come in where the default routes lead."""
        led = tuple(one for one in routes if one[1] != "lo")
        outer = {device for network, device in led if network.prefixlen == 0}
        return cls(frozenset(outer or {device for _, device in led}), frozenset(addresses), led)

    def leads_to(self, address: str) -> str:
        """The device of the narrowest route to `address`, or nothing."""
        found = parse(address)
        fitting = [one for one in self.routes if found is not None and one[0].version == found.version]
        best = max((one for one in fitting if found in one[0]), key=lambda one: one[0].prefixlen, default=None)
        return best[1] if best is not None else ""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Everything a host does with packets. origin: the file or program it was read from. marks: whether any rule
    sets a mark. versions: of IP, that it speaks of. unread: what could not be read of it at all, one line each; then
    nothing it says is sure."""

    tables: tuple[Table, ...] = ()
    origin: str = ""
    place: Place = field(default_factory=Place)
    marks: bool = False
    versions: frozenset[int] = frozenset((4, 6))
    unread: tuple[str, ...] = ()

    def rules(self) -> Iterator[tuple[Table, Chain, Rule]]:
        """Every rule of every chain."""
        for table in self.tables:
            for one in table.chains.values():
                for rule in one.rules:
                    yield table, one, rule


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the host that is translated to another address. source_rule: its text."""

    protocol: Protocol
    port: int
    version: int
    address: str
    target: str
    target_port: int
    rule: str
