"""Who is let in where: openings of several inventories laid over each other, port by port, and compared. Pure.
Counterpart: `joining`, `claims` and `widening` ask; `model.ports.PortPolicy.admits` says the same of one vantage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from vedette.model.levels import Level
from vedette.model.ports import (
    GATEWAYS,
    NOBODY,
    WORLD,
    Drift,
    DriftKind,
    HostExpectation,
    NamedNetwork,
    Network,
    Opening,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
)
from vedette.text.times import rfc3339

Networks = Mapping[str, NamedNetwork]
Segment = tuple[PortRange, tuple[tuple[Opening, ...], ...]]
"""Ports of which every one of several lists says one thing, and the openings in each list that cover them."""


def segments(protocol: Protocol, *said: Sequence[Opening]) -> Iterator[Segment]:
    """The ports that any of the lists speaks of, in order, cut wherever one of them begins or ends to speak."""
    of_protocol = [[one for one in openings if one.protocol is protocol] for openings in said]
    spoken = [one.ports for openings in of_protocol for one in openings]
    borders = sorted({border for ports in spoken for border in (ports.first, ports.last + 1)})
    covering: list[list[list[Opening]]] = [[[] for _ in said] for _ in borders]
    for at, openings in enumerate(of_protocol):
        for one in openings:
            for cut in range(bisect_left(borders, one.ports.first), bisect_left(borders, one.ports.last + 1)):
                covering[cut][at].append(one)
    for first, after, lists in zip(borders, borders[1:], covering, strict=False):
        if any(lists):
            yield PortRange(first, after - 1), tuple(tuple(one) for one in lists)


def stands_in(
    source: str, networks: Networks, by: Iterable[str], by_networks: Networks, *, summed: bool = True
) -> bool:
    """Whether everybody who stands in `source` stands in one of `by` too.

    summed: neighbouring prefixes count as what they make together; else each of `source` has to lie within one of
    `by`, as `PortPolicy.admits` has it. GATEWAYS stand in nothing but themselves: more of
    their addresses may be resolved later.
    """
    wide = set(by)
    if source == NOBODY or WORLD in wide:
        return True
    prefixes = () if source == GATEWAYS else _prefixes(source, networks)
    if source == WORLD or not prefixes:
        return source in wide
    around: list[Network] = [prefix for name in wide for prefix in _prefixes(name, by_networks)]
    if summed:
        around = sum_of(around)
    return all(any(within(prefix, one) for one in around) for prefix in prefixes)


def covers(
    by: Iterable[Opening],
    opening: Opening,
    by_networks: Networks,
    networks: Networks,
    *,
    timed: bool = True,
) -> bool:
    """Whether `by` together let in everybody whom `opening` does. timed: and for as long."""
    lasting = [one for one in by if not timed or not one.until or (opening.until and opening.until <= one.until)]
    sources = {source for one in lasting for source in one.sources}
    return all(stands_in(source, networks, sources, by_networks) for source in opening.sources)


def meet(one: Opening, other: Opening, networks: Networks) -> Opening | None:
    """An opening for those whom both let in, for as long as both do; None where that is nobody."""
    ours = [name for name in one.sources if stands_in(name, networks, other.sources, networks, summed=False)]
    theirs = [name for name in other.sources if stands_in(name, networks, one.sources, networks, summed=False)]
    sources = tuple(name for name in dict.fromkeys([*ours, *theirs]) if name != NOBODY)
    if not sources:
        return None
    narrower = other if set(sources) == set(other.sources) and set(sources) != set(one.sources) else one
    return replace(
        narrower,
        sources=sources,
        must_answer=one.must_answer or other.must_answer,
        until=min((until for until in (one.until, other.until) if until), default=0),
        level=strictest([one.level, other.level]),
    )


def strictest(said: Sequence[Level | None]) -> Level | None:
    """The level that counts where several are said, None being the usual one: a lower one only if all want it."""
    given = [level for level in said if level is not None]
    if len(given) == len(said) or max(given, default=Level.INFORMATIONAL) >= Level.HIGH:
        return max(given)
    return None


def lets_in(openings: Iterable[Opening]) -> bool:
    """Whether any of them lets anybody in."""
    return any(one.sources != (NOBODY,) for one in openings)


def within(prefix: Network, around: Network) -> bool:
    """Whether all of `prefix` lies in `around`."""
    if isinstance(prefix, IPv4Network) and isinstance(around, IPv4Network):
        return prefix.subnet_of(around)
    if isinstance(prefix, IPv6Network) and isinstance(around, IPv6Network):
        return prefix.subnet_of(around)
    return False


def sum_of(prefixes: Iterable[Network]) -> list[Network]:
    """The same addresses in as few prefixes as there can be."""
    all_of = list(prefixes)
    four = collapse_addresses(one for one in all_of if isinstance(one, IPv4Network))
    six = collapse_addresses(one for one in all_of if isinstance(one, IPv6Network))
    return [*four, *six]


def _prefixes(name: str, networks: Networks) -> tuple[Network, ...]:
    found = networks.get(name)
    return found.prefixes if found is not None else ()


class Places:
    """Hosts by what they are called and by where they are; `PortPolicy.host` for many questions."""

    def __init__(self, hosts: Iterable[HostExpectation]) -> None:
        self._names: dict[str, HostExpectation] = {}
        self._places: dict[str, HostExpectation] = {}
        for one in hosts:
            self._names.setdefault(one.name, one)
            for place in (*one.addresses, *one.names):
                self._places.setdefault(place, one)

    def host(self, name: str) -> HostExpectation | None:
        """The host called `name`, or that has this address or name to resolve."""
        return self._names.get(name) or self._places.get(name)


# ------------------------------------------------------------------------------------------------ in words


def who(openings: Iterable[Opening]) -> str:
    """Whom openings let in, and where that stands, for people: `office until ... (site.yml:3:7)`."""
    said = []
    for one in openings:
        until = f" until {rfc3339(one.until)[:16]}Z" if one.until else ""
        origin = f" ({one.origin})" if one.origin.file else ""
        said.append(f"{', '.join(one.sources)}{until}{origin}")
    return " and ".join(dict.fromkeys(said)) or NOBODY


def ports_text(ranges: Iterable[PortRange], protocol: Protocol) -> str:
    """`22, 80-90/tcp`."""
    return f"{', '.join(str(one) for one in ranges)}/{protocol.value}"


def read_drift(
    kind: DriftKind,
    level: Level,
    host: str,
    advice: str,
    now: int,
    *,
    address: str = "",
    port: int = 0,
    protocol: Protocol = Protocol.TCP,
    why: SeenWhy = SeenWhy.NOT_PROBED,
    opening: Opening | None = None,
) -> Drift:
    """A drift that was read and not looked at: it is of no vantage. now: microseconds UTC."""
    return Drift(
        kind, level, host, address, port, protocol, "", None, PortState.UNKNOWN, why, advice, now, opening
    )  # fmt: skip


def told_once(drifts: Iterable[Drift]) -> tuple[Drift, ...]:
    """The same drifts, those of one key as one that says all of it, in the order of their keys."""
    out: dict[tuple[str, str, str, int, str, str], Drift] = {}
    for one in drifts:
        known = out.get(one.key)
        if known is None:
            out[one.key] = one
        elif one.advice not in known.advice:
            level = max(known.level, one.level)
            out[one.key] = replace(known, advice=f"{known.advice}; {one.advice}", level=level)
    return tuple(out[key] for key in sorted(out))
