"""The decisions in force, indexed by target, by prefix and by end, so that policy need not read them all each time.
Counterpart: policy keeps one for enforced and one for simulated decisions, in step with the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from ipaddress import ip_network

from vedette.model.decisions import Decision, Target, TargetKind
from vedette.respond.allowlist import is_translated
from vedette.text.addresses import Network, parse_network

WIDE = 64
"""IPv6 offenders are counted together within a prefix of this length (RFC 6177: the least a site gets)."""


def target_of(network: Network) -> Target:
    """The target that stands for `network`: an address where it holds one only."""
    if network.prefixlen == network.max_prefixlen:
        return Target(TargetKind.ADDRESS, str(network.network_address))
    return Target(TargetKind.PREFIX, str(network))


def network_of(target: Target) -> Network:
    """The addresses of a target; ValueError for a user."""
    if target.kind is TargetKind.USER:
        raise ValueError("a user is no network")
    return parse_network(target.value)


def wide_of(network: Network) -> Network | None:
    """The /64 around one IPv6 address, None for anything else and where a /64 is shared by strangers."""
    if network.version == 4 or network.prefixlen != network.max_prefixlen:
        return None
    if is_translated(network):
        return None
    return ip_network((network.network_address, WIDE), strict=False)


class ActiveIndex:
    """At most one decision a target. Every look-up is flat in the number of decisions."""

    def __init__(self, decisions: Iterable[Decision] = ()) -> None:
        self._by_network: dict[Network, Decision] = {}
        self._ends: list[tuple[int, str, Network]] = []
        self._lengths: dict[tuple[int, int], int] = {}
        self._wide: dict[Network, set[Network]] = {}
        for decision in decisions:
            self.put(decision)

    def __len__(self) -> int:
        return len(self._by_network)

    def __iter__(self) -> Iterator[Decision]:
        return iter(list(self._by_network.values()))

    def get(self, network: Network) -> Decision | None:
        """The decision on exactly `network`."""
        return self._by_network.get(network)

    def put(self, decision: Decision) -> None:
        """Add or replace the decision on its target; users are kept elsewhere and ignored here."""
        if decision.target.kind is TargetKind.USER:
            return
        network = network_of(decision.target)
        if network not in self._by_network:
            length = (network.version, network.prefixlen)
            self._lengths[length] = self._lengths.get(length, 0) + 1
            if (wide := wide_of(network)) is not None:
                self._wide.setdefault(wide, set()).add(network)
        self._by_network[network] = decision
        heappush(self._ends, (decision.expires_at, decision.id, network))
        if len(self._ends) > 2 * len(self._by_network) + 64:  # prolonged leases leave old ends behind
            self._ends = [(one.expires_at, one.id, key) for key, one in self._by_network.items()]
            heapify(self._ends)

    def drop(self, network: Network) -> Decision | None:
        """Take the decision on `network` out."""
        decision = self._by_network.pop(network, None)
        if decision is None:
            return None
        length = (network.version, network.prefixlen)
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]
        if (wide := wide_of(network)) is not None:
            self._wide[wide].discard(network)
            if not self._wide[wide]:
                del self._wide[wide]
        return decision

    def covering(self, network: Network) -> Decision | None:
        """The decision that ends last among those on `network` or a prefix around it."""
        found = None
        for version, length in self._lengths:
            if version == network.version and length <= network.prefixlen:
                around = ip_network((network.network_address, length), strict=False)
                decision = self._by_network.get(around)
                if decision is not None and (found is None or decision.expires_at > found.expires_at):
                    found = decision
        return found

    def neighbours(self, wide: Network) -> set[Network]:
        """The single addresses blocked within the /64 `wide`."""
        return set(self._wide.get(wide, ()))

    def ended(self, now: int) -> list[Decision]:
        """Take out and give back the decisions whose lease has ended by `now`, in order of their end."""
        ended = []
        while self._ends and self._ends[0][0] <= now:
            expires_at, identity, network = heappop(self._ends)
            decision = self._by_network.get(network)
            if decision is not None and (decision.expires_at, decision.id) == (expires_at, identity):
                self.drop(network)
                ended.append(decision)
        return ended
