"""Who on a host answers for a port, as its inside view says; who would, and is not reached, and why. Pure.
Counterpart: `inside` makes the view; `judge` holds it against policy and what is seen from outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from vedette.model.clock import MINUTE
from vedette.model.ports import FirewallVerdict, InsideView, Listener, Protocol
from vedette.text.addresses import parse
from vedette.text.times import rfc3339

FRESH = 10 * MINUTE
"""So much older than a look a view may be, to say what is there and what is not."""
_EVERYWHERE = frozenset(("0.0.0.0", "::"))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A listener on a port. hindrance: why it is not what answers at the address asked about; empty = it is."""

    listener: Listener
    hindrance: str = ""


def candidates(view: InsideView, address: str, port: int, protocol: Protocol) -> list[Candidate]:
    """Every listener on that port, those that answer at `address` first, of them the published ones."""
    found = [
        Candidate(one, _hindrance(view, one, address))
        for one in view.listeners
        if one.port == port and one.protocol is protocol
    ]
    return sorted(
        found,
        key=lambda one: (
            bool(one.hindrance),
            # What a port is translated to answers in place of what listens on it here.
            not one.listener.published,
            one.listener.firewall is not FirewallVerdict.ACCEPTED,
        ),
    )


def recent(view: InsideView | None, looked_at: int) -> bool:
    """Whether `view` may speak of what was seen at `looked_at` (microseconds UTC)."""
    return view is not None and view.at >= looked_at - FRESH


def absent(view: InsideView | None, looked_at: int) -> bool:
    """Whether what `view` does not list was not there at `looked_at` (microseconds UTC)."""
    return view is not None and view.knows_own_ports and recent(view, looked_at)


def described(listener: Listener) -> str:
    """`nginx (pid 12, user www-data, nginx.service, package nginx-light)`, as far as it is known."""
    known = [
        f"pid {listener.pid}" if listener.pid else "",
        f"user {listener.user}" if listener.user else "",
        listener.unit,
        f"package {listener.package}" if listener.package else "",
        f"namespace {listener.namespace}" if listener.namespace else "",
    ]
    words = ", ".join(one for one in known if one)
    return f"{listener.process or 'something'} ({words})" if words else listener.process or "something"


def firewall_said(listener: Listener) -> str:
    """What the host's own firewall does with a stranger's connection to it, and the rule that says so."""
    rule = f": {listener.firewall_rule}" if listener.firewall_rule else ""
    match listener.firewall:
        case FirewallVerdict.ACCEPTED:
            return f"the host's own firewall lets it in{rule}"
        case FirewallVerdict.DROPPED | FirewallVerdict.REJECTED:
            return f"the host's own firewall keeps it shut{rule}"
        case FirewallVerdict.LIMITED_TO_SOURCES:
            return f"the host's own firewall lets only some sources in{rule}"
        case _:
            return f"what the host's own firewall does is not known{rule}"


def story(view: InsideView | None, address: str, port: int, protocol: Protocol) -> Iterator[str]:
    """The inside part of what is to be said of one port, line by line."""
    if view is None:
        yield "inside: not known, no agent of that host said anything"
        return
    found = candidates(view, address, port, protocol)
    for one in found:
        listener = one.listener
        since = f" since {rfc3339(listener.since)}" if listener.since else ""
        where = "published as" if listener.published else "listens on"
        yield f"inside: {described(listener)} {where} {_place(listener)}{since}"
        yield f"  {one.hindrance}" if one.hindrance else f"  {firewall_said(listener)}"
    if not found:
        sure = "nothing listens" if view.knows_own_ports else "no listener was found, and not everything could be read"
        yield f"inside: {sure} on {port}/{protocol.value}"
    if view.unread:
        yield "inside: could not be read: " + ", ".join(f"{why.value} {count}" for why, count in view.unread.items())
    yield f"inside: as of {rfc3339(view.at)}"


def _place(listener: Listener) -> str:
    bound = f"[{listener.address}]" if ":" in listener.address else listener.address
    device = f" of {listener.device}" if listener.device else ""
    return f"{bound}:{listener.port}/{listener.protocol.value}{' (IPv4 too)' if listener.dual else ''}{device}"


def _hindrance(view: InsideView, one: Listener, address: str) -> str:
    bound = ip_address(one.address)
    asked = parse(address)
    if one.namespace and not one.published:
        return f"it is in the network namespace {one.namespace}, and nothing publishes it there"
    if asked is not None and one.address == address:
        return ""
    if bound.is_loopback:
        return f"it is bound to {one.address} alone"
    if one.device == "lo" and not (asked is not None and asked.is_loopback):
        return "it is bound to the device lo alone"
    if asked is not None and not one.dual and bound.version != asked.version:
        return f"it takes IPv{bound.version} alone"
    translated = bool(view.addresses) and address not in view.addresses
    if one.address in _EVERYWHERE or asked is None or translated:
        return ""
    return f"it is bound to {one.address} alone"
