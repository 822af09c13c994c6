"""What hosts say of themselves, and what firewalls let through, compared with policy, of which they are no part. Pure.
Counterpart: `joining` hands in the joined policy; `chef`, `aws` and `firewall` read claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from vedette.inventory.admission import Places, covers, lets_in, ports_text, read_drift, segments, who
from vedette.model.ports import (
    DRIFT_LEVELS,
    GATEWAYS,
    NOBODY,
    Drift,
    DriftKind,
    Expectations,
    HostExpectation,
    NamedNetwork,
    Opening,
    PortPolicy,
    PortRange,
    Protocol,
    joined,
)

_KNOWN_GATEWAYS = "known gateways"
_APART = 8
"""So many stretches of ports of one claim are told one by one, the others together."""


def against_claims(
    policy: PortPolicy, said: Expectations, now: int, *, of_nodes: bool, known_as: Mapping[str, str]
) -> Iterator[Drift]:
    """Where claims allow more than policy, or shut what must answer. now: microseconds UTC.

    of_nodes: the hosts wrote them about themselves; one that allows itself more is `policy-widened`. What such a claim
    does not mention says nothing; what a firewall does not let through is shut, where all of it could be read.
    known_as: what policy calls hosts that an inventory calls otherwise.
    """
    networks = {**{one.name: one for one in said.networks}, **policy.networks}
    comparing = _Comparing(policy, said, networks, now, of_nodes)
    places = Places(policy.hosts)
    for claim in said.claims:
        host = places.host(known_as.get(claim.name, claim.name))
        # Where it is, a node says of itself: it could take another's place.
        found = {} if of_nodes else {one.name: one for at in claim.addresses if (one := places.host(at)) is not None}
        if host is None and len(found) == 1:
            (host,) = found.values()
        yield from comparing.unlisted(claim) if host is None else comparing.host(host, claim)


@dataclass(frozen=True, slots=True)
class _Comparing:
    policy: PortPolicy
    said: Expectations
    networks: Mapping[str, NamedNetwork]
    now: int
    of_nodes: bool

    def unlisted(self, claim: HostExpectation) -> Iterator[Drift]:
        """A host that nobody who may say so expects."""
        kind = DriftKind.INVENTORIES_DISAGREE
        opened = joined(one.ports for one in claim.openings if one.sources != (NOBODY,))
        what = f", which lets others reach {', '.join(map(str, opened[:_APART]))}" if opened else ""
        advice = (
            f"{self.said.inventory} knows {claim.name} ({claim.origin}){what}, and no policy names it: "
            "it is not looked at; add it to the policy, or take it away there"
        )
        address = claim.addresses[0] if claim.addresses else ""
        yield read_drift(kind, DRIFT_LEVELS[kind], claim.name, advice, self.now, address=address)

    def host(self, host: HostExpectation, claim: HostExpectation) -> Iterator[Drift]:
        """What is claimed of a host, against what policy says of it."""
        valid = [one for one in host.openings if not one.expired(self.now)]
        # An opening that has ended allows nothing, whoever says so.
        claim = replace(claim, openings=tuple(one for one in claim.openings if not one.expired(self.now)))
        for protocol in Protocol:
            yield from self._more(host, protocol, claim, valid)
            yield from self._shut(host, protocol, claim, [one for one in valid if one.must_answer])
        if self.of_nodes:
            yield from self._of_itself(host, claim)

    def _more(
        self, host: HostExpectation, protocol: Protocol, claim: HostExpectation, valid: list[Opening]
    ) -> Iterator[Drift]:
        found: dict[tuple[str, str], list[PortRange]] = {}
        openings: dict[tuple[str, str], Opening] = {}
        for ports, (allowed, claimed) in segments(protocol, valid, claim.openings):
            for one in claimed:
                if lets_in([one]) and not covers(
                    allowed, one, self.policy.networks, self.networks, timed=self.of_nodes
                ):
                    key = (who([one]), who(allowed) if allowed else f"nobody ({host.origin})")
                    found.setdefault(key, []).append(ports)
                    openings.setdefault(key, one)
        stretches = [(ports, *key) for key, ranges in found.items() for ports in joined(ranges)]
        for ports, new, old in stretches[:_APART]:
            what = f"{ports_text([ports], protocol)} to {new}"
            yield self._allows(host, protocol, claim, what, old, ports.first, openings[new, old])
        if more := [one for one, _, _ in stretches[_APART:]]:
            what = f"{len(more)} more stretches of ports, {ports_text(joined(more)[:_APART], protocol)} among them"
            yield self._allows(host, protocol, claim, what, "nothing of that kind", 0, None)

    def _allows(
        self,
        host: HostExpectation,
        protocol: Protocol,
        claim: HostExpectation,
        new: str,
        old: str,
        port: int,
        opening: Opening | None,
    ) -> Drift:
        if self.of_nodes:
            kind = DriftKind.POLICY_WIDENED
            advice = (
                f"{claim.name} says of itself that it opens {new}; policy says {old}, and that counts: "
                "find out who changed the node, or put it into the policy"
            )
        else:
            kind = DriftKind.INVENTORIES_DISAGREE
            advice = (
                f"{self.said.inventory} opens {new}, policy says {old}: narrow the firewall, or put it into the policy"
            )
        return read_drift(
            kind, DRIFT_LEVELS[kind], host.name, advice, self.now,
            address=_address(host), port=port, protocol=protocol, opening=opening,
        )  # fmt: skip

    def _shut(
        self, host: HostExpectation, protocol: Protocol, claim: HostExpectation, needed: list[Opening]
    ) -> Iterator[Drift]:
        if not needed:
            return
        whole = self.said.claims_complete and not self.of_nodes
        # By an address of a version of IP that a firewall's claims do not speak of, it may be open.
        versions = {ip_address(address).version for address in host.addresses} or {4, 6}
        whole = whole and versions <= set(self.said.claims_versions)
        here = self._reaching(host)
        # Of gateways what is known of their addresses; where nothing is, there is nothing to compare.
        gateways = (_KNOWN_GATEWAYS,) if here[GATEWAYS].prefixes else ()
        kind = DriftKind.INVENTORIES_DISAGREE
        found: dict[Opening, list[PortRange]] = {}
        for ports, (claimed, wanted) in segments(protocol, claim.openings, needed):
            if not whole and (not claimed or lets_in(claimed)):
                continue
            for one in wanted:
                sources = tuple(name for name in one.sources if name != GATEWAYS)
                sources += gateways if GATEWAYS in one.sources else ()
                if not covers(claimed, replace(one, sources=sources), self.networks, here, timed=False):
                    found.setdefault(one, []).append(ports)
        for one, ranges in found.items():
            what = ports_text(joined(ranges), protocol)
            by = f"{claim.name} by its own word" if self.of_nodes else f"{self.said.inventory} ({claim.origin})"
            advice = (
                f"{by} does not open {what} to everybody whom policy wants answered there, {who([one])}: "
                "open it, or take `must_answer` out of the policy"
            )
            yield read_drift(
                kind, DRIFT_LEVELS[kind], host.name, advice, self.now,
                address=_address(host), port=ranges[0].first, protocol=protocol, opening=one,
            )  # fmt: skip

    def _reaching(self, host: HostExpectation) -> Mapping[str, NamedNetwork]:
        """Networks of policy less what is of a version of IP in which the host is not known to have an address."""
        versions = {ip_address(address).version for address in host.addresses} or {4, 6}
        out = {}
        for name, network in self.policy.networks.items():
            prefixes = tuple(one for one in network.prefixes if one.version in versions)
            out[name] = replace(network, prefixes=prefixes or network.prefixes)
        out[_KNOWN_GATEWAYS] = out[GATEWAYS]
        return out

    def _of_itself(self, host: HostExpectation, claim: HostExpectation) -> Iterator[Drift]:
        kind = DriftKind.POLICY_WIDENED
        roles = [role for role in claim.roles if role not in host.roles]
        said = []
        if roles and host.roles:
            said.append(f"has the roles {', '.join(roles)} beside {', '.join(host.roles)}")
        elif roles:
            said.append(f"has the roles {', '.join(roles)}")
        if claim.gateway and not host.gateway:
            said.append("is a gateway")
        if said:
            advice = (
                f"{claim.name} says of itself that it {' and '.join(said)} ({claim.origin}); policy ({host.origin}) "
                "does not, and that counts: find out who changed the node, or put it into the policy"
            )
            yield read_drift(kind, DRIFT_LEVELS[kind], host.name, advice, self.now, address=_address(host))


def _address(host: HostExpectation) -> str:
    return host.addresses[0] if host.addresses else ""


def with_last(said: Expectations, last: Expectations) -> Expectations:
    """`said`, with those of the claims that were known last which this time could not be read.

    Where claims are complete that is `said`. A host of which nothing was heard claims what it did, one that was heard
    in part that too: whoever claimed too much must not end that by making himself unreadable.
    """
    if said.claims_complete:
        return said
    before = {one.name: one for one in last.claims}
    claims = [
        _united(one, before[one.name]) if one.name in said.claims_in_part and one.name in before else one
        for one in said.claims
    ]
    heard = {one.name for one in said.claims}
    claims += [one for one in last.claims if one.name not in heard]
    named = {one.name for one in said.networks}
    networks = (*said.networks, *(one for one in last.networks if one.name not in named))
    return replace(said, claims=tuple(claims), networks=networks)


def _united(now: HostExpectation, before: HostExpectation) -> HostExpectation:
    return replace(
        now,
        roles=tuple(dict.fromkeys((*now.roles, *before.roles))),
        openings=tuple(dict.fromkeys((*now.openings, *before.openings))),
        gateway=now.gateway or before.gateway,
    )
