"""The look behind the source `ports`: policy and inventories read anew each time, targets looked at, drifts judged.
Counterpart: `sources.ports.source` calls it on schedule; `app.ports` does the looking, `vedette ports check` too."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from vedette.app.ports import check_ports, here
from vedette.inventory.yaml import read_policy
from vedette.model.clock import Clock
from vedette.model.errors import ConfigError, VedetteError
from vedette.model.ports import DRIFT_LEVELS, Drift, DriftKind, PortPolicy, PortState, Protocol, SeenWhy, Vantage
from vedette.sources.ports.prober import Limits
from vedette.sources.ports.watch import Asked, Looked
from vedette.sources.settings import PortsSettings

POLICY = "policy"
"""Host name of a drift that is about the policy, or the look, as a whole."""
_SETTLES = 0.5
"""Seconds after which a file that somebody is writing is whole."""


@dataclass(slots=True)
class PortLook:
    """Looks at what the policy names, from here. One that breaks meanwhile is news, and the last one holds."""

    settings: PortsSettings
    clock: Clock
    _last: PortPolicy | None = field(default=None, init=False)

    def check(self) -> PortPolicy:
        """The policy as it is now; ConfigError where a run could not begin with it."""
        policy = read_policy(self.settings.policy)
        self._vantage(policy)
        self._last = policy
        return policy

    def __call__(self, asked: Asked | None, stop: threading.Event) -> Looked:
        """As `sources.ports.source.Look`."""
        drifts: list[Drift] = []
        policy = self._last
        if asked is None or policy is None:
            policy, broken = self._read_anew(stop)
            drifts += broken
        vantage = self._vantage(policy)
        try:
            checked = check_ports(
                policy,
                self.clock,
                vantage=vantage,
                limits=Limits(rate=self.settings.rate),
                asked=asked,
                stop=stop,
            )
        except OSError as error:
            # Out of descriptors, for example; the next look may well succeed.
            return Looked(policy, (), (*drifts, self._blind(vantage, error)), whole=False)
        drifts += checked.drifts
        return Looked(checked.policy, checked.surveys, tuple(drifts), whole=asked is None)

    def _read_anew(self, stop: threading.Event) -> tuple[PortPolicy, list[Drift]]:
        try:
            return self.check(), []
        except VedetteError:
            # Perhaps it is being written just now.
            stop.wait(_SETTLES)
        try:
            return self.check(), []
        except VedetteError as error:
            if self._last is None:
                raise
            return self._last, [self._broken(error)]

    def _vantage(self, policy: PortPolicy) -> Vantage:
        name = self.settings.vantage
        found = policy.vantage(name) if name else here(policy)
        if found is None:
            raise ConfigError(
                f"sources.ports.vantage: the policy has no vantage {name}",
                location=policy.origin,
                hint=", ".join(one.name for one in policy.vantages),
            )
        return found

    def _broken(self, error: VedetteError) -> Drift:
        kind = DriftKind.COULD_NOT_TELL_TOO_LONG
        return Drift(
            kind,
            DRIFT_LEVELS[kind],
            POLICY,
            str(self.settings.policy),
            0,
            Protocol.TCP,
            "",
            None,
            PortState.UNKNOWN,
            SeenWhy.NOT_PROBED,
            f"the policy cannot be read, what it said before holds: {error}",
            self.clock.now(),
        )

    def _blind(self, vantage: Vantage, error: OSError) -> Drift:
        kind = DriftKind.COULD_NOT_TELL
        return Drift(
            kind,
            DRIFT_LEVELS[kind],
            POLICY,
            vantage.name,
            0,
            Protocol.TCP,
            vantage.name,
            None,
            PortState.UNKNOWN,
            SeenWhy.LOCAL_LIMIT,
            f"nothing can be looked at from here: {error}",
            self.clock.now(),
        )
