"""Ports, wired: policy to targets, names to addresses, looks to drifts; and a first policy from what is there.
Counterpart: `cli.ports` prints what comes out; `inventory` and `sources.ports` know nothing of each other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import ip_network

from vedette.model.clock import SECOND, Clock
from vedette.model.ports import (
    GATEWAYS,
    LOCAL_VANTAGE,
    WORLD,
    Attention,
    Drift,
    HostExpectation,
    InsideView,
    NamedNetwork,
    Network,
    Opening,
    PortPolicy,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    TargetCondition,
    Vantage,
    joined,
)
from vedette.sources.ports.judge import judge
from vedette.sources.ports.nmap import Nmap, NmapLimits, Technique
from vedette.sources.ports.prober import Effort, Limits, Prober, Target
from vedette.sources.ports.watch import Asked
from vedette.text.addresses import canonical, contains

_NAMES_AT_ONCE = 16
_Untold = list[tuple[str, tuple[TargetCondition, SeenWhy]]]
"""Names and addresses that may not be looked at, or do not resolve, and why."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One look at everything a policy names, judged."""

    policy: PortPolicy
    surveys: tuple[Survey, ...]
    drifts: tuple[Drift, ...]
    effort: Effort


def check_ports(
    policy: PortPolicy,
    clock: Clock,
    *,
    vantage: Vantage | None = None,
    limits: Limits | None = None,
    inside: Iterable[InsideView] = (),
    asked: Asked | None = None,
    stop: threading.Event | None = None,
    syn: bool = False,
    services: bool = False,
) -> Checked:
    """Look at every address of every host from here, and judge. Blocks; runs in the network namespace of the caller.

    asked: look at these ports alone, of hosts that are in it. stop: set from another thread ends it early, with nothing
    said. UDP is
    nmap's; so is TCP with `syn` (half-open, as root), and with `services` what open TCP ports say they are.
    """
    vantage = vantage or here(policy)
    now = clock.now()
    limits = limits or Limits()
    targets: list[Target] = []
    by_datagram: list[Target] = []
    apart: list[Survey] = []
    hosts: list[HostExpectation] = []
    for host, (addresses, untold) in zip(policy.hosts, _resolved(policy, stop), strict=True):
        hosts.append(replace(host, addresses=tuple(addresses)))
        if asked is None:
            tcp = _asked(host, Protocol.TCP, policy.attention.tcp)
            udp = _asked(host, Protocol.UDP, policy.attention.udp)
        else:
            tcp, udp = (joined(asked.get((host.name, protocol), ())) for protocol in (Protocol.TCP, Protocol.UDP))
        apart += [_untold(host.name, name, Protocol.TCP, vantage, now, tcp, *why) for name, why in untold]
        for address in addresses:
            if tcp:
                targets.append(Target(host.name, address, tcp, _expected(host)))
            if udp:
                by_datagram.append(Target(host.name, address, udp))
    resolved = _with_gateways(replace(policy, hosts=tuple(hosts)))
    prober = Prober(clock, limits=limits, stop=stop)
    nmap = Nmap(clock, policy.own_networks, limits=NmapLimits(rate=limits.rate), stop=stop)
    seen = nmap.look(targets, vantage.name, Technique.SYN) if syn else prober.look(targets, vantage.name)
    if stop is not None and stop.is_set():
        # Nobody waits for what half a look would say of thousands of ports.
        return Checked(resolved, (), (), prober.effort)
    if services:
        seen = nmap.name_services(seen, vantage.name)
    surveys = (*seen, *nmap.look(by_datagram, vantage.name, Technique.UDP), *apart)
    effort = prober.effort
    if syn:
        asked_for, answers = sum(one.connections for one in seen), sum(one.answers for one in seen)
        effort = Effort(asked_for, answers, (clock.now() - now) / SECOND, 0)
    return Checked(resolved, surveys, tuple(judge(resolved, surveys, inside)), effort)


def here(policy: PortPolicy) -> Vantage:
    """The vantage this machine is: the first one without an agent."""
    return next((one for one in policy.vantages if not one.agent), LOCAL_VANTAGE)


def _resolved(policy: PortPolicy, stop: threading.Event | None) -> list[tuple[list[str], _Untold]]:
    """`addresses_of` every host, many at once: a name server that is slow must not be waited for name by name."""

    def of(host: HostExpectation) -> tuple[list[str], _Untold]:
        if stop is not None and stop.is_set():
            return [], []
        return addresses_of(host, policy)

    if not any(host.names for host in policy.hosts):
        return [of(host) for host in policy.hosts]
    with ThreadPoolExecutor(_NAMES_AT_ONCE, "names") as threads:
        return list(threads.map(of, policy.hosts))


def addresses_of(host: HostExpectation, policy: PortPolicy) -> tuple[list[str], _Untold]:
    """Every address of a host that may be looked at; and names and addresses that may not or do not resolve, why."""
    found = list(host.addresses)
    untold: _Untold = []
    for name in host.names:
        addresses = resolve(name)
        if not addresses:
            untold.append((name, (TargetCondition.UNRESOLVED, SeenWhy.NAME_UNRESOLVED)))
        for address in addresses:
            if not contains(policy.own_networks, address):
                untold.append((address, (TargetCondition.REFUSED, SeenWhy.OUTSIDE_OWN_NETWORKS)))
            elif address not in found:
                found.append(address)
    return found, untold


def resolve(name: str) -> list[str]:
    """All addresses of a name, IPv4 and IPv6, canonical; none where it does not resolve."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({found for *_, place in answers if (found := canonical(str(place[0]))) is not None})


def _with_gateways(policy: PortPolicy) -> PortPolicy:
    """The policy with what the names of gateways resolved to added to their network."""
    known = policy.networks[GATEWAYS].prefixes if GATEWAYS in policy.networks else ()
    found = (ip_network(address) for one in policy.hosts if one.gateway for address in one.addresses)
    prefixes = tuple(dict.fromkeys((*known, *found)))
    return replace(policy, networks={**policy.networks, GATEWAYS: NamedNetwork(GATEWAYS, prefixes)})


def _asked(host: HostExpectation, protocol: Protocol, attention: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    """What is looked at of a host: what must answer too, for what nobody looked at is no pass."""
    return joined((*attention, *(one.ports for one in host.openings if one.must_answer and one.protocol is protocol)))


def _expected(host: HostExpectation) -> tuple[int, ...]:
    ports = [
        port
        for one in host.openings
        if one.protocol is Protocol.TCP and len(one.ports) <= 64
        for port in range(one.ports.first, one.ports.last + 1)
    ]
    return tuple(dict.fromkeys(ports))


def _untold(
    host: str,
    address: str,
    protocol: Protocol,
    vantage: Vantage,
    now: int,
    asked: tuple[PortRange, ...],
    condition: TargetCondition,
    why: SeenWhy,
) -> Survey:
    return Survey(host, address, protocol, vantage.name, now, now, asked, PortState.UNKNOWN, why, condition=condition)


def learn_policy(
    addresses: Sequence[str],
    own: Sequence[Network],
    clock: Clock,
    *,
    tcp: tuple[PortRange, ...],
    limits: Limits | None = None,
) -> Checked:
    """A first policy, of what answers now: every open port as an opening to the world that a person has to own."""
    hosts_asked = tuple(
        HostExpectation(one, (address,)) if (address := canonical(one)) else HostExpectation(one, names=(one,))
        for one in addresses
    )
    empty = PortPolicy(tuple(own), hosts_asked, attention=Attention(tcp))
    checked = check_ports(empty, clock, limits=limits)
    hosts = []
    for host in checked.policy.hosts:
        seen = {port for one in checked.surveys if one.host == host.name for port in one.ports_in(PortState.OPEN)}
        openings = tuple(
            Opening(
                PortRange(port, port),
                Protocol.TCP,
                (WORLD,),
                owner="nobody yet",
                reason="was open when this was learned",
            )
            for port in sorted(seen)
        )
        hosts.append(replace(host, openings=openings, names=()))
    return replace(checked, policy=replace(checked.policy, hosts=tuple(hosts)))
