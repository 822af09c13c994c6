"""Several inventories and the policy file become one policy, and wherever they contradict each other a drift. Pure.
Counterpart: `app.inventories` reads them all and hands them in; docs/ports.md, "Inventories", says what holds when."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from vedette.inventory.admission import (
    covers,
    lets_in,
    meet,
    ports_text,
    read_drift,
    segments,
    stands_in,
    strictest,
    told_once,
    who,
    within,
)
from vedette.inventory.claims import against_claims
from vedette.inventory.port_words import RESERVED
from vedette.inventory.widening import widened as widened
from vedette.model.ports import (
    DRIFT_LEVELS,
    GATEWAYS,
    NOBODY,
    WORLD,
    Drift,
    DriftKind,
    Expectations,
    HostExpectation,
    NamedNetwork,
    Opening,
    PortPolicy,
    PortRange,
    Protocol,
    SeenWhy,
)
from vedette.text.addresses import contains

POLICY = "policy"
"""Host name of a drift that is about the policy as a whole."""
FILE = "the policy file"


@dataclass(frozen=True, slots=True)
class Joined:
    """One policy out of all that is said, and where they who say it contradict each other."""

    policy: PortPolicy
    drifts: tuple[Drift, ...] = ()


def join(own: PortPolicy, said: Iterable[Expectations], now: int, *, of_nodes: Collection[str] = ()) -> Joined:
    """The policy file's own word and that of inventories, as one policy.

    Inventories add up; one speaks of a port where it has an opening for it (`nobody` among them), and is silent else.
    Where the policy file speaks of a port it alone counts; where inventories do and differ, only those are let in whom
    all of them let in, for as long as all of them do. Claims change nothing: they are compared with what came out.
    of_nodes: names of inventories whose claims hosts wrote about themselves. now: microseconds UTC.
    """
    ordered = sorted(said, key=lambda one: one.inventory)
    joining = _Joining(own, now)
    joining.join_networks(ordered)
    joining.join_hosts(ordered)
    policy = joining.policy()
    places = {one.name: one.addresses[0] for one in policy.hosts if one.addresses}
    drifts = [one if one.address else replace(one, address=places.get(one.host, "")) for one in joining.drifts]
    for one in ordered:
        drifts += against_claims(policy, one, now, of_nodes=one.inventory in of_nodes, known_as=joining.known_as)
    return Joined(policy, told_once(drifts))


@dataclass(slots=True)
class _Host:
    """One host while it is put together. voices: who speaks of its ports, the policy file first; heard: inventories
    that named it; called: names it is looked for under if nobody says where it is."""

    host: HostExpectation
    voices: list[tuple[str, tuple[Opening, ...]]]
    heard: set[str] = field(default_factory=set)
    called: list[str] = field(default_factory=list)

    def add(self, more: HostExpectation) -> None:
        """What one more says of where and what it is."""
        known = self.host
        if not more.addresses and more.names == (more.name,):
            self.called.append(more.name)
            more = replace(more, names=())
        self.host = replace(
            known,
            addresses=tuple(dict.fromkeys((*known.addresses, *more.addresses))),
            names=tuple(dict.fromkeys((*known.names, *more.names))),
            roles=tuple(dict.fromkeys((*known.roles, *more.roles))),
            groups=tuple(dict.fromkeys((*known.groups, *more.groups))),
            gateway=known.gateway or more.gateway,
        )


@dataclass(slots=True)
class _Joining:
    own: PortPolicy
    now: int
    networks: dict[str, NamedNetwork] = field(default_factory=dict)
    hosts: dict[str, _Host] = field(default_factory=dict)
    drifts: list[Drift] = field(default_factory=list)
    known_as: dict[str, str] = field(default_factory=dict)
    """What a host is called here that an inventory calls otherwise."""
    _places: dict[str, str] = field(default_factory=dict)
    """Name of the host that an address or name to resolve belongs to."""

    # -------------------------------------------------------------------------------------------- networks

    def join_networks(self, said: Sequence[Expectations]) -> None:
        """Networks that openings of inventories name; of two of one name, what both call so."""
        self.networks.update(self.own.networks)
        from_inventories: dict[str, tuple[str, NamedNetwork]] = {}
        for one in said:
            named = {source for host in one.hosts for opening in host.openings for source in opening.sources}
            for network in one.networks:
                if network.name not in named or network.name in RESERVED:
                    continue
                if network.name in self.own.networks:
                    self._same(FILE, self.own.networks[network.name], one.inventory, network, f"{FILE} counts")
                elif network.name in from_inventories:
                    first, known = from_inventories[network.name]
                    self._same(first, known, one.inventory, network, "what both call so counts")
                    both = [a for a in known.prefixes if any(within(a, b) for b in network.prefixes)]
                    both += [b for b in network.prefixes if any(within(b, a) for a in known.prefixes)]
                    from_inventories[network.name] = (first, replace(known, prefixes=tuple(dict.fromkeys(both))))
                else:
                    from_inventories[network.name] = (one.inventory, network)
        self.networks.update({name: network for name, (_, network) in from_inventories.items()})

    def _same(self, first: str, known: NamedNetwork, second: str, network: NamedNetwork, counts: str) -> None:
        one, other = {known.name: known}, {network.name: network}
        if stands_in(known.name, one, [known.name], other) and stands_in(known.name, other, [known.name], one):
            return
        sides = [
            f"{name} ({item.origin}) calls {', '.join(map(str, item.prefixes))} so"
            for name, item in ((first, known), (second, network))
        ]
        self._drift(POLICY, f"network {network.name}: {'; '.join(sides)}; {counts}: make them agree", known.name)

    # -------------------------------------------------------------------------------------------- hosts

    def join_hosts(self, said: Sequence[Expectations]) -> None:
        """Hosts of the policy file, then what inventories add to them, and theirs."""
        for host in self.own.hosts:
            self.hosts[host.name] = known = _Host(replace(host, addresses=(), names=()), [(FILE, host.openings)])
            known.add(host)
            self._places |= dict.fromkeys((*host.addresses, *host.names), host.name)
        for one in said:
            # Those called as they are known to be come first: one that is known by an address alone gives way.
            for host in sorted(one.hosts, key=lambda host: host.name not in self.hosts):
                self._take(one.inventory, self._allowed(host))
        for name, known in list(self.hosts.items()):
            host = known.host
            if not host.addresses and not host.names:
                known.host = host = replace(host, names=tuple(dict.fromkeys(known.called)))
            if host.addresses or host.names:
                continue
            del self.hosts[name]
            if any(one.host == name for one in self.drifts if one.kind is DriftKind.COULD_NOT_TELL):
                continue  # said already: where it is, is not ours
            advice = f"nobody says where {name} is ({host.origin}), so it was not looked at: give it an address"
            self._untold(name, advice, SeenWhy.NAME_UNRESOLVED)

    def _allowed(self, host: HostExpectation) -> HostExpectation:
        """The host less those of its addresses that are not one's own."""
        for address in host.addresses:
            if not contains(self.own.own_networks, address):
                advice = f"{address} ({host.origin}) is outside own_networks, so it was left alone: correct one of them"
                self._untold(host.name, advice, SeenWhy.OUTSIDE_OWN_NETWORKS, address)
        return replace(host, addresses=tuple(one for one in host.addresses if contains(self.own.own_networks, one)))

    def _take(self, inventory: str, host: HostExpectation) -> None:
        there = {self._places[place] for place in (*host.addresses, *host.names) if place in self._places}
        if host.name in self.hosts:
            name = host.name
        elif len(there) == 1 and inventory not in self.hosts[next(iter(there))].heard:
            name = next(iter(there))
        else:
            name = host.name
        for other in sorted(there - {name}):
            shared = [one for one in (*host.addresses, *host.names) if self._places.get(one) == other]
            advice = (
                f"{', '.join(shared)} belongs to {other} ({self.hosts[other].host.origin}), and by {inventory} "
                f"({host.origin}) to {name} too: the first counts, correct the other"
            )
            self._drift(other, advice)
            host = replace(
                host,
                addresses=tuple(one for one in host.addresses if one not in shared),
                names=tuple(one for one in host.names if one not in shared),
            )
        if there and not host.addresses and not host.names and name not in self.hosts:
            return  # said already: somebody else is there
        known = self.hosts.setdefault(name, _Host(replace(host, addresses=(), names=(), openings=()), []))
        known.add(host)
        known.heard.add(inventory)
        if name != host.name:
            self.known_as.setdefault(host.name, name)
        if host.openings:
            known.voices.append((inventory, self._known_sources(inventory, name, host.openings)))
        self._places |= dict.fromkeys((*host.addresses, *host.names), name)

    def _known_sources(self, inventory: str, host: str, openings: tuple[Opening, ...]) -> tuple[Opening, ...]:
        """The openings less sources that lead nowhere: those let nobody in."""
        out = []
        known = {*self.networks, *RESERVED}
        for one in openings:
            lost = [name for name in one.sources if name not in known]
            for name in lost:
                close = difflib.get_close_matches(name, known, n=1)
                advice = (
                    f"{inventory} ({one.origin}) opens {one.ports}/{one.protocol.value} to {name}, which no inventory "
                    f"defines: it lets nobody in{f' (did you mean {close[0]}?)' if close else ''}"
                )
                self._drift(host, advice, port=one.ports.first, protocol=one.protocol, opening=one)
            out.append(_without(one, lost) if lost else one)
        return tuple(out)

    # -------------------------------------------------------------------------------------------- together

    def policy(self) -> PortPolicy:
        """The policy that comes out; drifts are complete after it."""
        hosts = [replace(one.host, openings=self._together(name, one)) for name, one in self.hosts.items()]
        gateways = [one for one in hosts if one.gateway]
        prefixes = tuple(ip_network(address) for one in gateways for address in one.addresses)
        self.networks[GATEWAYS] = NamedNetwork(GATEWAYS, prefixes, self.own.origin)
        names = tuple(one.name for one in gateways)
        out = []
        for host in hosts:
            host = host if host.gateway else replace(host, openings=self._restricted(host))
            asked = next((one for one in host.openings if GATEWAYS in one.sources), None)
            if asked is not None and not gateways:
                advice = (
                    f"{asked.ports}/{asked.protocol.value} is open to gateways ({asked.origin}), and no host is one"
                )
                self._drift(host.name, advice, port=asked.ports.first, protocol=asked.protocol, opening=asked)
            out.append(replace(host, gateways=names if asked is not None and not host.gateway else ()))
        return replace(self.own, hosts=tuple(out), networks=self.networks)

    def _together(self, name: str, host: _Host) -> tuple[Opening, ...]:
        """What all voices come to."""
        voices = [(inventory, openings) for inventory, openings in host.voices if openings]
        if len(voices) < 2:
            return voices[0][1] if voices else ()
        out: list[Opening] = []
        for protocol in Protocol:
            apart: list[tuple[PortRange, Opening]] = []
            disputes: dict[tuple[str, tuple[Opening, ...]], list[PortRange]] = {}
            for ports, lists in segments(protocol, *(openings for _, openings in voices)):
                speaking = [(voices[at][0], covering) for at, covering in enumerate(lists) if covering]
                agreed, agree = self._agreed(speaking)
                apart += [(ports, one) for one in agreed]
                if not agree:
                    sides = "; ".join(f"by {inventory}: {who(covering)}" for inventory, covering in speaking)
                    counts = f"{FILE} counts" if speaking[0][0] == FILE else f"the stricter counts: {_whom(agreed)}"
                    advice = f"may be reached {sides}; {counts}; correct the one that is wrong"
                    disputes.setdefault((advice, agreed), []).append(ports)
            out += _side_by_side(apart)
            for (advice, agreed), ranges in disputes.items():
                place = ports_text(_touching(ranges), protocol)
                first = replace(agreed[0], ports=PortRange(ranges[0].first, ranges[-1].last))
                self._drift(name, f"{place} {advice}", port=ranges[0].first, protocol=protocol, opening=first)
        return tuple(out)

    def _agreed(self, speaking: Sequence[tuple[str, tuple[Opening, ...]]]) -> tuple[tuple[Opening, ...], bool]:
        """What those who speak of one port come to, and whether they say the same."""
        (first, agreed), *others = speaking
        agree = True
        for _, covering in others:
            same = self._all_in(agreed, covering) and self._all_in(covering, agreed)
            agree = agree and same
            if first == FILE:
                continue
            if same:
                needed = any(one.must_answer for one in covering) and lets_in(agreed)
                agreed = tuple(replace(one, must_answer=True) for one in agreed) if needed else agreed
                levels = [one.level for one in covering]
                agreed = tuple(replace(one, level=strictest([one.level, *levels])) for one in agreed)
                continue
            both = [meet(one, other, self.networks) for one in agreed for other in covering]
            left = {(one.sources, one.until, one.must_answer): one for one in reversed(both) if one is not None}
            agreed = tuple(left.values()) or (replace(agreed[0], sources=(NOBODY,), must_answer=False),)
        return agreed, agree

    def _all_in(self, openings: Iterable[Opening], by: Sequence[Opening]) -> bool:
        return all(covers(by, one, self.networks, self.networks) for one in openings)

    def _restricted(self, host: HostExpectation) -> tuple[Opening, ...]:
        """The openings of a host that is no gateway, less what only gateways may have."""
        openings = host.openings
        for ports, protocol in self.own.only_on_gateways:
            out: list[Opening] = []
            for one in openings:
                rest = one.ports.without(ports)
                if one.protocol is not protocol or WORLD not in one.sources or rest == (one.ports,):
                    out.append(one)
                    continue
                inside = PortRange(max(one.ports.first, ports.first), min(one.ports.last, ports.last))
                out += [replace(one, ports=left) for left in rest]
                out.append(replace(_without(one, [WORLD]), ports=inside))
                advice = (
                    f"{inside}/{protocol.value} is open to the world by {one.origin}, and by only_on_gateways "
                    f"({self.own.origin}) on gateways alone, and that counts: `from: {GATEWAYS}`, or make it a gateway"
                )
                self._drift(host.name, advice, port=inside.first, protocol=protocol, opening=one)
            openings = tuple(out)
        return openings

    # -------------------------------------------------------------------------------------------- said

    def _drift(
        self,
        host: str,
        advice: str,
        address: str = "",
        *,
        port: int = 0,
        protocol: Protocol = Protocol.TCP,
        opening: Opening | None = None,
    ) -> None:
        kind = DriftKind.INVENTORIES_DISAGREE
        self.drifts.append(
            read_drift(
                kind,
                DRIFT_LEVELS[kind],
                host,
                advice,
                self.now,
                address=address,
                port=port,
                protocol=protocol,
                opening=opening,
            )
        )

    def _untold(self, host: str, advice: str, why: SeenWhy, address: str = "") -> None:
        kind = DriftKind.COULD_NOT_TELL
        self.drifts.append(read_drift(kind, DRIFT_LEVELS[kind], host, advice, self.now, address=address, why=why))


def _without(opening: Opening, sources: Collection[str]) -> Opening:
    left = tuple(name for name in opening.sources if name not in sources)
    return replace(opening, sources=left or (NOBODY,), must_answer=opening.must_answer and bool(left))


def _side_by_side(apart: Iterable[tuple[PortRange, Opening]]) -> list[Opening]:
    """Openings of neighbouring ports that say the same, as one."""
    out: list[Opening] = []
    last: dict[Opening, int] = {}
    for ports, opening in apart:
        at = last.get(opening)
        if at is not None and out[at].ports.last + 1 == ports.first:
            out[at] = replace(out[at], ports=PortRange(out[at].ports.first, ports.last))
        else:
            last[opening] = len(out)
            out.append(replace(opening, ports=ports))
    return out


def _touching(ranges: Iterable[PortRange]) -> list[PortRange]:
    out: list[PortRange] = []
    for one in ranges:
        if out and out[-1].last + 1 == one.first:
            out[-1] = PortRange(out[-1].first, one.last)
        else:
            out.append(one)
    return out


def _whom(openings: Iterable[Opening]) -> str:
    return ", ".join(dict.fromkeys(source for one in openings for source in one.sources))
