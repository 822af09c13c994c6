"""A first packet of a stranger, walked through a ruleset: from which sources it gets in, and which rule says so.
Counterpart: `rulesets` is what it walks through; `firewall` and `app.port_inside` ask."""

# Netfilter's path of a packet: ingress, prerouting, then input or forward; base chains of a hook by priority, an
# accept ends one base chain, a drop ends everything (nft(8), "VERDICT STATEMENTS"; iptables(8)).
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from vedette.inventory.rulesets import (
    ALL,
    EMPTY,
    AnyOf,
    Chain,
    Condition,
    Field,
    Hook,
    Known,
    Named,
    Numbered,
    Published,
    Rule,
    Ruleset,
    Spans,
    Table,
    Unread,
    Verb,
    address_span,
    both,
    either,
    less,
    networks,
    size,
)
from vedette.model.ports import FirewallVerdict, Listener, Protocol
from vedette.text.addresses import canonical

_V6 = ((0x2000, 0x4000), (0xFC00, 0xFE00), (0xFE80, 0xFEC0))
STRANGERS: dict[int, Spans] = {
    4: ((0x01000000, 0x7EFFFFFF), (0x80000000, 0xDFFFFFFF)),
    6: tuple((first << 112, (after << 112) - 1) for first, after in _V6),
}
"""Addresses that a connection may come from, by version: unicast, without the host's own loopback."""
_WORLD: dict[int, Spans] = {4: STRANGERS[4], 6: STRANGERS[6][:1]}
_FAMILIES = {4: frozenset(("ip", "inet", "netdev")), 6: frozenset(("ip6", "inet", "netdev"))}
_POLICY = "policy accept"
_DEEPEST = 16
"""Jumps within jumps, as the kernel allows."""
MOST_STEPS = 200_000
"""Rules that are asked about one packet. Chains that jump to each other again and again would have no end, and whoever
has a namespace of his own may write them."""
_TOO_LONG = f"a packet meets more than {MOST_STEPS} rules"
_EVERYWHERE = frozenset(("0.0.0.0", "::"))
MOST_NAMED = 6
"""So many sources are named in a text."""


@dataclass(frozen=True, slots=True)
class _Packet:
    version: int
    protocol: Protocol
    port: int
    destination: Spans
    """It goes to one of these."""
    local: bool = True
    settled: bool = False
    """A rule has said where it is translated to; no other one is asked."""
    translated: bool = False
    """And that is another place than where it was sent."""
    leaving: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What a rule, or a chain's policy, does with these sources. sure: whether all its conditions are understood."""

    sources: Spans
    verb: Verb
    text: str
    sure: bool = True


@dataclass(slots=True)
class Fate:
    """What may become of a connection, by its source. A source in two of them could not be decided."""

    version: int
    found: dict[Verb, list[Spans]] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    translations: list[tuple[Spans, Rule]] = field(default_factory=list)

    def add(self, verb: Verb, sources: Spans) -> None:
        """Count these sources among those that may fare so."""
        self.found.setdefault(verb, []).append(sources)

    def those(self, verb: Verb) -> Spans:
        """The sources that may fare so: ACCEPT, DROP, REJECT or UNREAD."""
        # Joined once they are asked for: thousands of rules add one address each.
        return either(*self.found.get(verb, ()))

    def doubt(self) -> Spans:
        """The sources of which it cannot be told."""
        shut = either(self.those(Verb.DROP), self.those(Verb.REJECT))
        return either(both(self.those(Verb.ACCEPT), shut), self.those(Verb.UNREAD))

    def admitted(self) -> Spans:
        """The sources that surely get in."""
        return less(self.those(Verb.ACCEPT), self.doubt())

    def verdict(self) -> tuple[FirewallVerdict, str]:
        """For a stranger anywhere. ACCEPTED: most of the world gets in; LIMITED_TO_SOURCES: less than that."""
        doubt, admitted = self.doubt(), self.admitted()
        if most_of_the_world(admitted, self.version):
            return FirewallVerdict.ACCEPTED, self._said(Verb.ACCEPT)
        if doubt:
            unsure = [one.text for one in self.parts if not one.sure and both(one.sources, doubt)]
            return FirewallVerdict.UNKNOWN, "; ".join(dict.fromkeys(unsure[:3]))
        if admitted:
            named = [str(one) for one, _ in zip(networks(admitted, self.version), range(MOST_NAMED + 1), strict=False)]
            more = ["and more"] if len(named) > MOST_NAMED else []
            text = f"{self._said(Verb.ACCEPT)} [from {', '.join([*named[:MOST_NAMED], *more])}]"
            return FirewallVerdict.LIMITED_TO_SOURCES, text
        if size(self.those(Verb.REJECT)) > size(self.those(Verb.DROP)):
            return FirewallVerdict.REJECTED, self._said(Verb.REJECT)
        return FirewallVerdict.DROPPED, self._said(Verb.DROP)

    def _said(self, verb: Verb) -> str:
        """The text of what does `verb` to most sources, for sure; a rule rather than a policy, the last of several."""
        fitting = [one for one in self.parts if one.verb is verb]
        fitting = [one for one in fitting if one.sure] or fitting
        ruled = [one for one in fitting if not one.text.endswith(_POLICY)] or fitting
        return max(reversed(ruled), key=lambda one: size(one.sources)).text if ruled else ""


def most_of_the_world(sources: Spans, version: int) -> bool:
    """Whether at least half of all public addresses are among `sources`: rules that shut some out leave it open."""
    world = _WORLD[version]
    return 2 * size(both(sources, world)) >= size(world)


def verdict(ruleset: Ruleset, listener: Listener, address: str = "") -> tuple[FirewallVerdict, str]:
    """What the input path does with a first packet from anywhere to `listener`, and the rule that says so.

    address: the one of the host's it is sent to, where the listener has several; without, any. UNKNOWN where a rule
    that matters is not understood; the text then names it. A listener that takes both families: the more open one.
    """
    bound = address or listener.address
    found = canonical(bound)
    if found is None:
        return FirewallVerdict.UNKNOWN, ""
    if ip_address(found).is_loopback:
        return FirewallVerdict.DROPPED, "bound to loopback, which no other host reaches"
    if ruleset.unread:
        return FirewallVerdict.UNKNOWN, ruleset.unread[0]
    versions = [4, 6] if listener.dual and not address else [ip_address(found).version]
    if any(version not in ruleset.versions for version in versions):
        return FirewallVerdict.UNKNOWN, f"{ruleset.origin} does not speak of this version of IP"
    told = [
        fate(ruleset, listener.protocol, listener.port, version, "" if found in _EVERYWHERE else found).verdict()
        for version in versions
    ]
    rank = (
        FirewallVerdict.ACCEPTED,
        FirewallVerdict.UNKNOWN,
        FirewallVerdict.LIMITED_TO_SOURCES,
        FirewallVerdict.REJECTED,
        FirewallVerdict.DROPPED,
    )
    return min(told, key=lambda one: rank.index(one[0]))


def fate(ruleset: Ruleset, protocol: Protocol, port: int, version: int, address: str = "") -> Fate:
    """What becomes of a first packet to `port`, by its source. address: of the host, "" = any it has."""
    out = Fate(version)
    _Walk(ruleset, out).begin(_Packet(version, protocol, port, _destination(ruleset, version, address)))
    return out


def published(ruleset: Ruleset, protocol: Protocol, port: int, version: int) -> Iterator[Published]:
    """Where a packet to `port` of this host is translated to, if anywhere."""
    seen = set()
    for _, rule in fate(ruleset, protocol, port, version).translations:
        entry = Published(
            protocol, port, version, _only_destination(rule, version), rule.address, rule.port or port, rule.text
        )
        if entry not in seen:
            seen.add(entry)
            yield entry


def ports_spoken_of(ruleset: Ruleset, *, translated: bool = False) -> Spans:
    """The ports that rules name, or only those that rules which translate name."""
    found: Spans = EMPTY
    for _, _, rule in ruleset.rules():
        if translated and rule.verb is not Verb.TRANSLATE:
            continue
        for one in _numbered(rule.conditions):
            if one.field is Field.DESTINATION_PORT:
                found = either(found, one.spans)
    return found


def port_borders(ruleset: Ruleset) -> list[int]:
    """The ports at which the answer may change, ascending from 1: between two of them all ports fare alike."""
    borders = {1}
    for _, _, rule in ruleset.rules():
        for one in _numbered(rule.conditions):
            if one.field is Field.DESTINATION_PORT:
                borders |= {at for first, last in one.spans for at in (first, last + 1)}
    return sorted(at for at in borders if 1 <= at <= 65_535)


def _numbered(conditions: tuple[Condition, ...]) -> Iterator[Numbered]:
    for one in conditions:
        if isinstance(one, Numbered):
            yield one
        elif isinstance(one, AnyOf):
            for row in one.rows:
                yield from _numbered(row)


def _only_destination(rule: Rule, version: int) -> str:
    for one in _numbered(rule.conditions):
        if one.field is Field.DESTINATION and one.version == version and not one.negated and size(one.spans) == 1:
            return next(str(network.network_address) for network in networks(one.spans, version))
    return ""


def _destination(ruleset: Ruleset, version: int, address: str) -> Spans:
    wanted = [address] if address else [one for one in ruleset.place.addresses if not ip_address(one).is_loopback]
    found = [span for one in wanted if (span := address_span(one)) is not None and span[0] == version]
    return tuple(sorted(pair for _, pair in found)) or ALL[version]


@dataclass(slots=True)
class _Walk:
    ruleset: Ruleset
    fate: Fate
    steps: int = 0

    def begin(self, packet: _Packet) -> None:
        before = [*self._bases(Hook.INGRESS, packet), *self._bases(Hook.PREROUTING, packet)]
        self._through(before, packet, STRANGERS[packet.version])

    def _bases(self, hook: Hook, packet: _Packet) -> list[tuple[Table, Chain]]:
        found = [
            (chain.base.priority, at, table, chain)
            for at, table in enumerate(self.ruleset.tables)
            if table.family in _FAMILIES[packet.version]
            for chain in table.chains.values()
            if chain.base is not None and chain.base.hook is hook
        ]
        return [(table, chain) for _, _, table, chain in sorted(found, key=lambda one: one[:2])]

    def _through(self, chains: list[tuple[Table, Chain]], packet: _Packet, sources: Spans) -> None:
        """The rest of the way before routing, then what lies behind it."""
        for at, (table, chain) in enumerate(chains):
            if not sources:
                return
            assert chain.base is not None
            if packet.settled and chain.base.type == "nat":
                continue
            passing = _Passing()
            self._base(table, chain, packet, sources, passing)
            for some, rule in passing.translated:
                self.fate.translations.append((some, rule))
                self._through(chains[at + 1 :], self._translated(packet, rule), some)
            sources = either(*passing.accepted)
        after = self._bases(Hook.INPUT if packet.local else Hook.FORWARD, packet)
        for table, chain in after:
            if not sources:
                return
            passing = _Passing()
            self._base(table, chain, packet, sources, passing)
            sources = either(*passing.accepted)
        self.fate.add(Verb.ACCEPT, sources)
        if not after and sources:
            self.fate.parts.append(Part(sources, Verb.ACCEPT, "no chain filters it: policy accept"))

    def _translated(self, packet: _Packet, rule: Rule) -> _Packet:
        port = rule.port or packet.port
        if not rule.address:
            return replace(packet, port=port, settled=True, translated=port != packet.port)
        span = address_span(rule.address)
        own = self.ruleset.place.addresses
        return replace(
            packet,
            port=port,
            destination=(span[1],) if span is not None else ALL[packet.version],
            local=rule.address in own or (span is not None and ip_address(rule.address).is_loopback),
            settled=True,
            translated=port != packet.port or span is None or packet.destination != (span[1],),
            leaving=self.ruleset.place.leads_to(rule.address),
        )

    def _base(self, table: Table, chain: Chain, packet: _Packet, sources: Spans, passing: _Passing) -> None:
        base = chain.base
        assert base is not None
        if base.hook is Hook.INGRESS and base.devices:
            sure, possible = self._device(Named(Field.INPUT_DEVICE, base.devices), sources)
            passing.accepted.append(less(sources, sure))
            sources = possible
        left = self._chain(table, chain, packet, sources, passing, 0)
        if not left:
            return
        text = f"{table.family} {table.name} {chain.name}: policy {'accept' if base.accepts else 'drop'}"
        if base.accepts:
            passing.accepted.append(left)
            if base.type == "filter":
                self.fate.parts.append(Part(left, Verb.ACCEPT, text))
        else:
            self.fate.add(Verb.DROP, left)
            self.fate.parts.append(Part(left, Verb.DROP, text))

    def _chain(
        self, table: Table, chain: Chain, packet: _Packet, sources: Spans, passing: _Passing, depth: int
    ) -> Spans:
        """Which sources come back out of it undecided."""
        returned: list[Spans] = []
        for rule in chain.rules:
            if not sources:
                break
            self.steps += 1
            if self.steps > MOST_STEPS:
                self.fate.add(Verb.UNREAD, either(*returned, sources))
                self.fate.parts.append(Part(sources, Verb.UNREAD, _TOO_LONG, False))
                return EMPTY
            if rule.verb is Verb.NOTHING:
                continue
            sure, possible = self._meets(rule.conditions, packet, sources)
            if not possible:
                continue
            if sure != possible:
                self.fate.parts.append(Part(less(possible, sure), rule.verb, rule.text, False))
            sources = less(sources, sure)
            match rule.verb:
                case Verb.ACCEPT:
                    passing.accepted.append(possible)
                    self._part(sure, rule)
                case Verb.DROP | Verb.REJECT:
                    self.fate.add(rule.verb, possible)
                    self._part(sure, rule)
                case Verb.TRANSLATE:
                    passing.translated.append((possible, rule))
                case Verb.RETURN:
                    returned.append(possible)
                case Verb.JUMP | Verb.GOTO if depth < _DEEPEST and rule.chain in table.chains:
                    back = self._chain(table, table.chains[rule.chain], packet, possible, passing, depth + 1)
                    if rule.verb is Verb.JUMP:
                        sources = either(sources, back)
                    else:
                        returned.append(back)
                case _:
                    self.fate.add(Verb.UNREAD, possible)
                    self.fate.parts.append(Part(possible, Verb.UNREAD, rule.text, False))
        return either(*returned, sources)

    def _part(self, sure: Spans, rule: Rule) -> None:
        if sure:
            self.fate.parts.append(Part(sure, rule.verb, rule.text))

    def _meets(self, conditions: tuple[Condition, ...], packet: _Packet, sources: Spans) -> tuple[Spans, Spans]:
        """Of `sources`: those that surely meet all conditions, and those that may."""
        sure = possible = sources
        for one in conditions:
            certain, possible = self._meets_one(one, packet, possible)
            sure = both(sure, certain)
            if not possible:
                break
        return sure, possible

    def _meets_one(self, one: Condition, packet: _Packet, sources: Spans) -> tuple[Spans, Spans]:
        match one:
            case Known():
                return (sources, sources) if one.holds else (EMPTY, EMPTY)
            case Unread():
                return EMPTY, sources
            case AnyOf():
                sure, possible = EMPTY, EMPTY
                for row in one.rows:
                    certain, perhaps = self._meets(row, packet, sources)
                    sure, possible = either(sure, certain), either(possible, perhaps)
            case Named():
                if one.field is Field.INPUT_DEVICE:
                    sure, possible = self._device(one, sources)
                else:
                    sure, possible = self._named(one, packet, sources)
            case Numbered():
                if one.version and one.version != packet.version:
                    return EMPTY, EMPTY
                sure, possible = self._numbered(one, packet, sources)
        return (less(sources, possible), less(sources, sure)) if one.negated else (sure, possible)

    def _device(self, one: Named, sources: Spans) -> tuple[Spans, Spans]:
        arriving = self.ruleset.place.arriving
        if not arriving:
            return (sources, sources) if "*" in one.names else (EMPTY, EMPTY if one.names <= {"lo"} else sources)
        fits = [any(_is_device(device, name) for name in one.names) for device in arriving]
        return sources if all(fits) else EMPTY, sources if any(fits) else EMPTY

    def _named(self, one: Named, packet: _Packet, sources: Spans) -> tuple[Spans, Spans]:
        match one.field:
            case Field.FAMILY:
                holds: bool | None = ("ip" if packet.version == 4 else "ip6") in one.names
            case Field.PROTOCOL:
                holds = packet.protocol.value in one.names
            case Field.STATE:
                holds = "new" in one.names
            case Field.STATUS:
                holds = "dnat" in one.names and packet.translated
            case Field.DESTINATION_TYPE:
                holds = ("local" if packet.local else "unicast") in one.names
            case Field.OUTPUT_DEVICE if packet.leaving:
                holds = any(_is_device(packet.leaving, name) for name in one.names)
            case _:
                holds = None
        return (EMPTY, sources) if holds is None else (sources, sources) if holds else (EMPTY, EMPTY)

    def _numbered(self, one: Numbered, packet: _Packet, sources: Spans) -> tuple[Spans, Spans]:
        match one.field:
            case Field.SOURCE:
                found = both(sources, one.spans)
                return found, found
            case Field.DESTINATION_PORT:
                there = any(first <= packet.port <= last for first, last in one.spans)
                return (sources, sources) if there else (EMPTY, EMPTY)
            case Field.DESTINATION:
                common = both(packet.destination, one.spans)
                return sources if common == packet.destination else EMPTY, sources if common else EMPTY
            case Field.MARK if not self.ruleset.marks:
                return (sources, sources) if both(one.spans, ((0, 0),)) else (EMPTY, EMPTY)
            case _:
                return EMPTY, sources


@dataclass(slots=True)
class _Passing:
    """What goes on behind a base chain."""

    accepted: list[Spans] = field(default_factory=list)
    translated: list[tuple[Spans, Rule]] = field(default_factory=list)


def _is_device(device: str, name: str) -> bool:
    return device.startswith(name[:-1]) if name.endswith("*") else device == name
