"""What policy lets in that it did not let in when it was last read: every widening a drift, narrowing none. Pure.
Counterpart: `app.inventories` keeps the policy that was joined before; `joining` made both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vedette.inventory.admission import (
    Places,
    covers,
    lets_in,
    ports_text,
    read_drift,
    segments,
    sum_of,
    told_once,
    who,
    within,
)
from vedette.model.levels import Level
from vedette.model.ports import (
    DRIFT_LEVELS,
    Drift,
    DriftKind,
    HostExpectation,
    Opening,
    PortPolicy,
    PortRange,
    Protocol,
    joined,
)

_KIND = DriftKind.POLICY_WIDENED
NEW_HOST = Level.MEDIUM
"""Of a host nobody spoke of before: fleets grow every day, and nothing that was watched became less so."""


def widened(before: PortPolicy, after: PortPolicy, now: int) -> tuple[Drift, ...]:
    """Everything `after` lets in that `before` did not, with old, new and origin. now: microseconds UTC.

    Names do not matter: a network or host that is called otherwise and is the same is no news, and a network that
    grew widens every opening that names it.
    """
    return told_once(_Widening(before, after, now, Places(before.hosts)).all())


@dataclass(frozen=True, slots=True)
class _Widening:
    before: PortPolicy
    after: PortPolicy
    now: int
    places: Places

    def all(self) -> Iterator[Drift]:
        known = sum_of(self.before.own_networks)
        for prefix in self.after.own_networks:
            if not any(within(prefix, one) for one in known):
                old = ", ".join(map(str, self.before.own_networks))
                advice = (
                    f"own_networks now holds {prefix} ({self.after.origin}), it was {old}: hosts there are looked at"
                )
                yield read_drift(_KIND, DRIFT_LEVELS[_KIND], "policy", advice, self.now, address=str(prefix))
        for host in self.after.hosts:
            were = self._old(host)
            if not were:
                yield from self._new(host)
                continue
            yield from self._of_itself(were[0], host)
            for was in were:
                if host.openings != was.openings or self.before.networks != self.after.networks:
                    for protocol in Protocol:
                        yield from self._openings(was, host, protocol)

    def _old(self, host: HostExpectation) -> list[HostExpectation]:
        """What the host was, the one called so first; more than one where it has an address that was another's."""
        places = (host.name, *host.addresses, *host.names)
        found = {old.name: old for place in places if (old := self.places.host(place)) is not None}
        return list(found.values())

    def _new(self, host: HostExpectation) -> Iterator[Drift]:
        opened = [one for one in host.openings if lets_in([one]) and not one.expired(self.now)]
        if not opened and not host.gateway:
            return
        said = [f"{one.ports}/{one.protocol.value} from {who([one])}" for one in opened]
        what = f"{'a gateway, ' if host.gateway else ''}open: {'; '.join(said) or 'nothing'}"
        advice = f"{host.name} is new ({host.origin}), {what}; nobody spoke of it before: is it yours?"
        level = DRIFT_LEVELS[_KIND] if host.gateway else NEW_HOST
        yield read_drift(_KIND, level, host.name, advice, self.now, address=_address(host))

    def _of_itself(self, old: HostExpectation, new: HostExpectation) -> Iterator[Drift]:
        said = []
        roles = [role for role in new.roles if role not in old.roles]
        if roles:
            said.append(f"has the new roles {', '.join(roles)}, it had {', '.join(old.roles) or 'none'}")
        if new.gateway and not old.gateway:
            said.append("is a gateway now, it was none")
        elif new.gateway:
            moved = [one for one in (*new.addresses, *new.names) if one not in (*old.addresses, *old.names)]
            if moved:
                was = ", ".join((*old.addresses, *old.names))
                said.append(f"is a gateway and is at {', '.join(moved)} too, it was at {was}")
        if said:
            advice = f"{new.name} {' and '.join(said)} ({old.origin}, now {new.origin}): who changed that?"
            yield read_drift(_KIND, DRIFT_LEVELS[_KIND], new.name, advice, self.now, address=_address(new))

    def _openings(self, old: HostExpectation, new: HostExpectation, protocol: Protocol) -> Iterator[Drift]:
        found: dict[tuple[str, str], list[PortRange]] = {}
        openings: dict[tuple[str, str], Opening] = {}
        for ports, (were, are) in segments(protocol, old.openings, new.openings):
            for one in are:
                if one.expired(self.now) or covers(were, one, self.before.networks, self.after.networks):
                    continue
                key = (who(were) if were else f"nobody ({old.origin})", self._who(one))
                found.setdefault(key, []).append(ports)
                openings.setdefault(key, one)
        for (was, now), ranges in found.items():
            together = joined(ranges)
            advice = (
                f"{ports_text(together, protocol)} may be reached by {now}, it was {was}: who changed that? "
                "Take it back, or let it stand"
            )
            yield read_drift(
                _KIND, DRIFT_LEVELS[_KIND], new.name, advice, self.now,
                address=_address(new), port=together[0].first, protocol=protocol, opening=openings[was, now],
            )  # fmt: skip

    def _who(self, opening: Opening) -> str:
        """Whom it lets in; of networks that changed under their name, with what they hold now."""
        grown = [
            f"{name} is now {', '.join(map(str, now.prefixes))}, it was {', '.join(map(str, was.prefixes))}"
            for name in opening.sources
            if (now := self.after.networks.get(name)) and (was := self.before.networks.get(name))
            if set(now.prefixes) != set(was.prefixes)
        ]
        return f"{who([opening])} ({'; '.join(grown)})" if grown else who([opening])


def _address(host: HostExpectation) -> str:
    return host.addresses[0] if host.addresses else ""
