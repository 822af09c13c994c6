"""This host's inside view, with what its firewall does to each listener and which ports it publishes; and for whom.
Counterpart: `sources.ports.inside` lists sockets, `inventory.verdicts` walks rulesets; `app.ports` judges with it."""

from __future__ import annotations

import socket
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

from vedette.inventory.firewall import live_ruleset, runner
from vedette.inventory.rulesets import Place, Published, Ruleset
from vedette.inventory.verdicts import port_borders, ports_spoken_of, published, verdict
from vedette.model.clock import Clock
from vedette.model.ports import FirewallVerdict, HostExpectation, InsideView, Listener, PortPolicy, Protocol, UnreadWhy
from vedette.sources.ports.inside import Inside, Space, look_inside
from vedette.system.bound_sockets import addresses

OWN_SECONDS, OTHER_SECONDS, ALL_SECONDS = 15.0, 2.0, 15.0
"""How long the rulesets of our own namespace, of another and of all others may take. Anybody may make namespaces, and
rulesets in them that take for ever; what is within `ALL_SECONDS` is looked at, of the rest it is said so."""
OTHER_BYTES = 4 * 1024 * 1024
MOST_LISTENERS = 100_000
Insight = Callable[[PortPolicy], tuple[InsideView, ...]]
"""What this machine says of its own sockets, where a policy names it."""
MOST_PUBLISHED = 4096
"""So many translated ports are looked at; a rule that translates all of them is no list of published ports."""
_ANY = {4: "0.0.0.0", 6: "::"}
_TOO_MUCH = "not asked: there is too much inside of this host to look at all of it"


@dataclass(frozen=True, slots=True)
class _Known:
    """A namespace and its ruleset."""

    space: Space
    rules: Ruleset
    verdicts: _Verdicts


@dataclass(slots=True)
class _Verdicts:
    """What a ruleset does with listeners; between two borders all ports fare alike, and are asked for once."""

    rules: Ruleset
    borders: list[int]
    _known: dict[tuple[int, Protocol, str, bool], tuple[FirewallVerdict, str]] = field(default_factory=dict)
    _translates: dict[tuple[int, Protocol, int], bool] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Ruleset) -> _Verdicts:
        return cls(rules, port_borders(rules))

    def verdict(self, one: Listener) -> tuple[FirewallVerdict, str]:
        """As `verdicts.verdict`."""
        key = (bisect_right(self.borders, one.port), one.protocol, one.address, one.dual)
        if key not in self._known:
            self._known[key] = verdict(self.rules, one)
        return self._known[key]

    def translates(self, protocol: Protocol, port: int, version: int) -> bool:
        """Whether a rule translates what is sent to `port`."""
        key = (bisect_right(self.borders, port), protocol, version)
        if key not in self._translates:
            self._translates[key] = any(True for _ in published(self.rules, protocol, port, version))
        return self._translates[key]


def inside_view(host: str, clock: Clock, root: Path = Path("/")) -> InsideView:
    """What listens on this machine, under the name `host`, and what its firewalls do with each. Blocks.

    A listener that takes both families and whose two fates differ is listed once for each. Without root what can be
    read is listed, and `unread` counts the rest.
    """
    found = look_inside(host, clock, root)
    end = time.monotonic() + ALL_SECONDS
    known = []
    listeners: list[Listener] = []
    for space in found.spaces:
        rules = _ruleset(found, space, end)
        known.append(_Known(space, rules, _Verdicts.of(rules)))
        for listener in space.listeners:
            if not space.namespace.own and not rules.unread and time.monotonic() > end:
                found.missed(UnreadWhy.FIREWALL)
                listeners.append(replace(listener, firewall_rule=_TOO_MUCH))
                continue
            listeners += _with_verdict(known[-1].verdicts, listener)
    here = next((one for one in known if one.space.namespace.own), None)
    if here is not None:
        listeners += _published(found, here, known)
    if len(listeners) > MOST_LISTENERS:
        # What can be reached from elsewhere is kept first.
        listeners.sort(key=lambda one: (not one.published, bool(one.namespace), _is_loopback(one.address)))
        found.missed(UnreadWhy.SOCKETS, len(listeners) - MOST_LISTENERS)
        del listeners[MOST_LISTENERS:]
    return found.view(listeners)


def inside_of(policy: PortPolicy, clock: Clock) -> tuple[InsideView, ...]:
    """The view of the one host of `policy` that this machine is, if it is any."""
    host = own_host(policy, addresses())
    return () if host is None else (inside_view(host.name, clock),)


def own_host(policy: PortPolicy, own: frozenset[str], name: str | None = None) -> HostExpectation | None:
    """The host of `policy` that this machine is: by an address of its own, by its name, by loopback alone; or none.

    own: its addresses. name: what it calls itself; None = ask. A host behind the translation of addresses has none
    of those in the policy, and is told by its name.
    """
    called = socket.gethostname() if name is None else name
    by_address = [host for host in policy.hosts if own & set(host.addresses)]
    beyond = [host for host in by_address if any(not _is_loopback(one) for one in own & set(host.addresses))]
    by_name = [host for host in policy.hosts if called and _is_called(host, called)]
    return next(iter((*beyond, *by_name, *by_address)), None)


def _is_called(host: HostExpectation, name: str) -> bool:
    return any(one == name or one.startswith(f"{name}.") for one in (host.name, *host.names))


def _is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback


def _ruleset(found: Inside, space: Space, end: float) -> Ruleset:
    """end: of the time there is for those of other namespaces."""
    place = Place.of(space.addresses, space.routes)
    own = space.namespace.own
    left = OWN_SECONDS if own else min(OTHER_SECONDS, end - time.monotonic())
    run = runner(left) if own else runner(left, OTHER_BYTES)
    try:
        if left > 0:
            rules = space.within(lambda: live_ruleset(place, run=run))
        else:
            rules = Ruleset(place=place, unread=(_TOO_MUCH,))
    except OSError as error:
        rules = Ruleset(place=place, unread=(f"the namespace cannot be entered: {error.strerror or error}",))
    if rules.unread:
        found.missed(UnreadWhy.FIREWALL)
        if space.namespace.own:
            found.missed(UnreadWhy.TRANSLATION)
    return rules


def _with_verdict(rules: _Verdicts, listener: Listener) -> Iterator[Listener]:
    if listener.device == "lo":
        yield replace(listener, firewall=FirewallVerdict.DROPPED, firewall_rule="bound to the device lo")
        return
    if listener.dual:
        told = {version: rules.verdict(replace(listener, address=_ANY[version], dual=False)) for version in (4, 6)}
        if told[4][0] is not told[6][0]:
            for version, (what, rule) in told.items():
                yield replace(listener, address=_ANY[version], dual=False, firewall=what, firewall_rule=rule)
            return
    what, rule = rules.verdict(listener)
    yield replace(listener, firewall=what, firewall_rule=rule)


# ------------------------------------------------------------------------------------------------ containers


def _published(found: Inside, here: _Known, known: list[_Known]) -> list[Listener]:
    """Ports of the host that are translated to a listener elsewhere, or to an address of nobody we can see into."""
    ports = [port for first, last in ports_spoken_of(here.rules, translated=True) for port in range(first, last + 1)]
    # A rule that translates whole addresses names no port: what listens behind them does.
    elsewhere = {one.port for other in known if other is not here for one in other.space.listeners}
    asked = [
        (port, protocol, version)
        for port in dict.fromkeys([*ports, *sorted(elsewhere)])
        for protocol in Protocol
        for version in _ANY
        if here.verdicts.translates(protocol, port, version)
    ]
    ports = list(dict.fromkeys(port for port, *_ in asked))
    found.missed(UnreadWhy.TRANSLATION, max(len(ports) - MOST_PUBLISHED, 0))
    taken = set(ports[:MOST_PUBLISHED])
    out: list[Listener] = []
    for port, protocol, version in sorted(one for one in asked if one[0] in taken):
        for entry in published(here.rules, protocol, port, version):
            out += _behind(found, here, known, entry)
    return list(dict.fromkeys(out))


def _behind(found: Inside, here: _Known, known: list[_Known], entry: Published) -> Iterator[Listener]:
    """Who answers where a port is translated to."""
    bound = entry.address or _ANY[entry.version]
    front = Listener(found.host, bound, entry.port, entry.protocol, published=True)
    what, rule = here.verdicts.verdict(front)
    target = entry.target or bound
    if not entry.target or target in here.space.addresses:
        holders = [here] if entry.target_port != entry.port or entry.target else []
    else:
        holders = [one for one in known if target in one.space.addresses and one is not here]
        if not holders:
            yield replace(front, firewall=what, firewall_rule=f"{entry.rule} (no namespace here has {target})")
            return
    for holder in holders:
        behind = next((one for one in holder.space.listeners if _takes(one, target, entry)), None)
        if behind is None:
            continue
        own, own_rule = holder.verdicts.verdict(behind) if holder is not here else (FirewallVerdict.ACCEPTED, "")
        if own is not FirewallVerdict.ACCEPTED:
            what, rule = own, own_rule
        yield replace(
            behind, address=bound, port=entry.port, dual=False, published=True, firewall=what,
            firewall_rule=f"{entry.rule}; {rule}",
        )  # fmt: skip


def _takes(one: Listener, target: str, entry: Published) -> bool:
    if (one.port, one.protocol) != (entry.target_port, entry.protocol):
        return False
    if not entry.target:
        return one.device != "lo" and not _is_loopback(one.address)
    return one.address in (target, _ANY[entry.version]) or (one.dual and one.address == "::")
