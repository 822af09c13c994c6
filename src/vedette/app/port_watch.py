"""The look behind the source `ports`: policy and inventories read anew each time, targets looked at, drifts judged.
Counterpart: `sources.ports.source` calls it on schedule; `app.ports` does the looking, `vedette ports check` too."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from vedette.app.inventories import Gathered, gather
from vedette.app.port_inside import Insight
from vedette.app.ports import check_ports, here
from vedette.inventory.admission import read_drift
from vedette.inventory.joining import POLICY
from vedette.inventory.yaml import PolicyFile, read_policy_file
from vedette.model.clock import Clock
from vedette.model.errors import ConfigError, StateError, VedetteError
from vedette.model.ports import (
    DRIFT_LEVELS,
    Drift,
    DriftKind,
    PortPolicy,
    SeenWhy,
    Vantage,
)
from vedette.sources.ports.prober import Limits
from vedette.sources.ports.watch import Asked, Looked
from vedette.sources.settings import PortsSettings

_SETTLES = 0.5
"""Seconds after which a file that somebody is writing is whole."""


@dataclass(slots=True)
class PortLook:
    """Looks at what the policy names, from here. One that breaks meanwhile is news, and the last one holds.

    keep: a folder of our own for what inventories said last; None = nothing is kept, and no widening is seen. inside:
    what this machine says of itself, where the policy names it.
    """

    settings: PortsSettings
    clock: Clock
    keep: Path | None = None
    inside: Insight = lambda _: ()
    _gathered: Gathered | None = field(default=None, init=False)
    _last: PortPolicy | None = field(default=None, init=False)

    def check(self) -> PolicyFile:
        """The policy file as it is now; ConfigError where a run could not begin with it. Asks no inventory."""
        file = read_policy_file(self.settings.policy)
        self._vantage(file.policy)
        return file

    def __call__(self, asked: Asked | None, stop: threading.Event) -> Looked:
        """As `sources.ports.source.Look`."""
        drifts: list[Drift] = []
        whole = asked is None
        if asked is None or self._last is None:
            read, whole = self._read_anew(stop)
            drifts += read
            whole = whole and asked is None
        policy = self._last
        assert policy is not None
        vantage = self._vantage(policy)
        try:
            checked = check_ports(
                policy,
                self.clock,
                vantage=vantage,
                limits=Limits(rate=self.settings.rate),
                inside=self.inside(policy),
                asked=asked,
                stop=stop,
            )
        except OSError as error:
            # Out of descriptors, for example; the next look may well succeed.
            return Looked(policy, (), (*drifts, self._blind(vantage, error)), whole=False)
        drifts += checked.drifts
        whole = whole and not stop.is_set()
        return Looked(checked.policy, checked.surveys, tuple(drifts), whole=whole)

    def _read_anew(self, stop: threading.Event) -> tuple[list[Drift], bool]:
        """Bring the policy up to date; what is to be said of that, and whether all of it could be read."""
        said: list[Drift] = []
        if self._gathered is not None:
            try:
                # What was read then is said and committed long since.
                self._gathered.settle()
            except StateError as error:
                words = f"what inventories said cannot be kept, so a widening may be told again: {error}"
                said.append(self._told(DriftKind.COULD_NOT_TELL, words))
        try:
            gathered = self._gather(stop)
        except VedetteError as error:
            if self._last is None:
                raise
            words = f"the policy cannot be read, what it said before holds: {error}"
            return [*said, self._told(DriftKind.COULD_NOT_TELL_TOO_LONG, words)], False
        self._gathered = gathered
        if gathered.whole or self._last is None:
            self._last = gathered.policy
        return [*said, *gathered.drifts], gathered.whole

    def _gather(self, stop: threading.Event) -> Gathered:
        try:
            self.check()
        except VedetteError:
            # Perhaps it is being written just now.
            stop.wait(_SETTLES)
            self.check()
        return gather(self.settings.policy, self.clock, self.keep, settle=False)

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

    def _told(self, kind: DriftKind, words: str) -> Drift:
        return read_drift(kind, DRIFT_LEVELS[kind], POLICY, words, self.clock.now(), address=str(self.settings.policy))

    def _blind(self, vantage: Vantage, error: OSError) -> Drift:
        """Told of the vantage, so that the next look that succeeds ends it."""
        words = f"nothing can be looked at from here: {error}"
        told = self._told(DriftKind.COULD_NOT_TELL, words)
        return replace(told, address=vantage.name, vantage=vantage.name, why=SeenWhy.LOCAL_LIMIT)
