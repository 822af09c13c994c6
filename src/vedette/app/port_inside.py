"""This host's inside view, with what its firewall does to each listener and which ports it publishes; and for whom.
Counterpart: `sources.ports.inside` lists sockets, `inventory.verdicts` walks rulesets; `app.ports` judges with it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from vedette.inventory.firewall import live_ruleset
from vedette.inventory.rulesets import Place, Published, Ruleset
from vedette.inventory.verdicts import ports_spoken_of, published, verdict
from vedette.model.clock import Clock
from vedette.model.ports import FirewallVerdict, HostExpectation, InsideView, Listener, PortPolicy, Protocol, UnreadWhy
from vedette.sources.ports.inside import Inside, Space, look_inside
from vedette.system.bound_sockets import addresses

MOST_PUBLISHED = 4096
"""So many translated ports are looked at; a rule that translates all of them is no list of published ports."""
_ANY = {4: "0.0.0.0", 6: "::"}


@dataclass(frozen=True, slots=True)
class _Known:
    """A namespace and its ruleset."""

    space: Space
    rules: Ruleset


def inside_view(host: str, clock: Clock, root: Path = Path("/")) -> InsideView:
    """What listens on this machine, under the name `host`, and what its firewalls do with each. Blocks.

    A listener that takes both families and whose two fates differ is listed once for each. Without root what can be
    read is listed, and `unread` counts the rest.
    """
    found = look_inside(host, clock, root)
    known = [_Known(space, _ruleset(found, space)) for space in found.spaces]
    listeners = [
        said for one in known for listener in one.space.listeners for said in _with_verdict(one.rules, listener)
    ]
    here = next((one for one in known if one.space.namespace.own), None)
    if here is not None:
        listeners += _published(found, here, known)
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


def _ruleset(found: Inside, space: Space) -> Ruleset:
    place = Place.of(space.addresses, space.routes)
    try:
        rules = space.within(lambda: live_ruleset(place))
    except OSError as error:
        rules = Ruleset(place=place, unread=(f"the namespace cannot be entered: {error.strerror or error}",))
    if rules.unread:
        found.missed(UnreadWhy.FIREWALL)
        if space.namespace.own:
            found.missed(UnreadWhy.TRANSLATION)
    return rules


def _with_verdict(rules: Ruleset, listener: Listener) -> Iterator[Listener]:
    if listener.device == "lo":
        yield replace(listener, firewall=FirewallVerdict.DROPPED, firewall_rule="bound to the device lo")
        return
    if listener.dual:
        told = {version: verdict(rules, replace(listener, address=_ANY[version], dual=False)) for version in (4, 6)}
        if told[4][0] is not told[6][0]:
            for version, (what, rule) in told.items():
                yield replace(listener, address=_ANY[version], dual=False, firewall=what, firewall_rule=rule)
            return
    what, rule = verdict(rules, listener)
    yield replace(listener, firewall=what, firewall_rule=rule)


# ------------------------------------------------------------------------------------------------ containers


def _published(found: Inside, here: _Known, known: list[_Known]) -> list[Listener]:
    """Ports of the host that are translated to a listener elsewhere, or to an address of nobody we can see into."""
    ports = [port for first, last in ports_spoken_of(here.rules, translated=True) for port in range(first, last + 1)]
    if len(ports) > MOST_PUBLISHED:
        found.missed(UnreadWhy.TRANSLATION, len(ports) - MOST_PUBLISHED)
        ports = ports[:MOST_PUBLISHED]
    # A rule that translates whole addresses names no port: what listens behind them does.
    elsewhere = {one.port for other in known if other is not here for one in other.space.listeners}
    out: list[Listener] = []
    for port in sorted({*ports, *elsewhere}):
        for protocol in Protocol:
            for version in _ANY:
                for entry in published(here.rules, protocol, port, version):
                    out += _behind(found, here, known, entry)
    return list(dict.fromkeys(out))


def _behind(found: Inside, here: _Known, known: list[_Known], entry: Published) -> Iterator[Listener]:
    """Who answers where a port is translated to."""
    bound = entry.address or _ANY[entry.version]
    front = Listener(found.host, bound, entry.port, entry.protocol, published=True)
    what, rule = verdict(here.rules, front)
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
        own, own_rule = verdict(holder.rules, behind) if holder is not here else (FirewallVerdict.ACCEPTED, "")
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
