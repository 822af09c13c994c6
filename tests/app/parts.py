"""A pipeline over a state in memory: rules built by hand, a disk that refuses, enforcers that fail.
Counterpart: src/vedette/app/pipeline.py; tests/detections/parts.py has the parser of `key=value` records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.detections.parts import PairParser, batch_of

from vedette.alerts.routes import ReceiverKind
from vedette.alerts.routing import Router
from vedette.alerts.settings import AlertsSettings
from vedette.app import own, upstream
from vedette.app.budget import budget_of
from vedette.app.counters import Counters
from vedette.app.hub_engine import HubEngine
from vedette.app.knowing import Knowing
from vedette.app.pipeline import Pipeline
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.detections.match import Matcher
from vedette.model.alerts import Alert
from vedette.model.batch import Batch
from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.model.decisions import Decision, Rung, Target
from vedette.model.errors import EnforcementError, StateError
from vedette.model.levels import Level
from vedette.model.retention import Kept
from vedette.model.rules import (
    Comparison,
    Correlate,
    CorrelationKind,
    Op,
    Response,
    Rule,
    RuleKind,
    Test,
    Threshold,
)
from vedette.respond.allowlist import Entry, Guard
from vedette.respond.known_logins import KnownLogins
from vedette.respond.policy import Policy
from vedette.respond.settings import RespondSettings
from vedette.store.state import Mended
from vedette.testing.clock import FakeClock
from vedette.testing.state import MemoryState, MemoryTransaction

ATTACKER = "198.51.100.7"
HOST = "host-1"
SKEW_LIMIT = 5 * MINUTE

FAILED = Rule("failed", "Failed", Level.INFORMATIONAL, when=Test("event.action", Op.EQUALS, ("failed",)), silent=True)
BRUTE = Rule(
    "brute",
    "Guesser",
    Level.MEDIUM,
    correlate=Correlate(
        CorrelationKind.EVENT_COUNT, ("failed",), ("source.ip",), 10 * MINUTE, (Threshold(Comparison.GTE, 3),)
    ),
    response=Response(lease=HOUR),
    tags=("attack.t1110.001",),
)
STOPPED = Rule(
    "stopped",
    "Logger stopped",
    Level.HIGH,
    when=Test("event.action", Op.EQUALS, ("stopped",)),
    kind=RuleKind.CONDITION,
    key=("host.name",),
)
STARTED = Rule(
    "started",
    "Logger started",
    Level.INFORMATIONAL,
    when=Test("event.action", Op.EQUALS, ("started",)),
    key=("host.name",),
    clears="stopped",
)
LOGIN = Rule("login", "Login", Level.INFORMATIONAL, when=Test("event.action", Op.EQUALS, ("accepted",)), silent=True)
RULES = (FAILED, BRUTE, STOPPED, STARTED, LOGIN)


class RefusableState(MemoryState):
    """A state in memory whose disk is full when a test says so, at the end of a transaction: the worst moment.

    transactions: how many were begun. version: what `foreign_version` says. found: what `mend` says next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusing = False
        self.version = 0
        self.found = Mended.NOTHING
        self.transactions = 0

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        self.transactions += 1
        with super().transaction() as transaction:
            yield transaction
            if self.refusing:
                raise StateError("disk full")

    def foreign_version(self) -> int:
        return self.version

    def mend(self) -> Mended:
        found, self.found = self.found, Mended.NOTHING
        return found


class FakeEnforcer:
    """Holds what it was told; fails while `broken`. on_add: looks at the world before a block is in force."""

    def __init__(self, on_add: Callable[[Sequence[Decision]], None] = lambda _: None, name: str = "fake") -> None:
        self.name = name
        self.broken = ""
        self.held: dict[Target, Decision] = {}
        self.calls: list[str] = []
        self._on_add = on_add

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.broken:
            raise EnforcementError(self.broken)

    def add(self, decisions: Sequence[Decision], now: int) -> None:
        self._on_add(decisions)
        self._called("add")
        self.held |= {one.target: one for one in decisions}

    def remove(self, targets: Iterable[Target]) -> None:
        self._called("remove")
        for target in targets:
            self.held.pop(target, None)

    def sync(self, active: Sequence[Decision], now: int) -> int:
        self._called("sync")
        wanted = {one.target: one for one in active}
        changed = len(wanted.keys() ^ self.held.keys())
        self.held = wanted
        return changed

    def close(self) -> None:
        self.calls.append("close")

    @property
    def blocked(self) -> set[str]:
        return {target.value for target in self.held}


class Rig:
    """A pipeline with everything around it. `start` makes it anew on the same state: a restart."""

    def __init__(
        self,
        *,
        state: Any = None,
        enforcers: Sequence[FakeEnforcer] = (),
        rules: Sequence[Rule] = RULES,
        rung: Rung = Rung.ENFORCE,
        skew_limit: int = 0,
        clock: FakeClock | None = None,
        retention: dict[Kept, int] | None = None,
        alerts: AlertsSettings | None = None,
        page_budget: int | None = None,
        shelf: Any = None,
        stream: Any = None,
        hub: bool = False,
        **blocking: Any,
    ) -> None:
        self.clock = clock or FakeClock()
        self.state = state if state is not None else RefusableState()
        self.enforcers = list(enforcers)
        self.guard = Guard()
        self.allowed_meanwhile: list[Entry] = []
        self.woken = 0
        self.trouble = ""
        self._rules = list(rules)
        self._skew_limit = skew_limit
        self._alerts = alerts or AlertsSettings()
        self._retention = retention
        self._page_budget = page_budget
        self._shelf, self._stream, self._hub = shelf, stream, hub
        self._responding = RespondSettings(rungs={"brute": rung}, **blocking)
        self._position = 0
        self.start()

    def start(self) -> None:
        self.counters = Counters()
        matcher = Matcher(self._rules, PairParser(), skew_limit=self._skew_limit)
        correlator = Correlator(self._rules, counter=self.counters, track=True)
        correlator.restore(self.state.correlation())
        known = KnownLogins(self._responding.known_logins, self._rules)
        known.restore(self.state.correlation(), self.clock.now())
        knowing = Knowing(known, self._rules, LOGIN.id, lambda _source: False)
        self.loggers = upstream.Upstream(upstream.RULES)
        self.loggers.restore(self.state.correlation())
        receivers = {"mail": ReceiverKind.MAIL, "pager": ReceiverKind.PAGE}
        self.router = Router(self._alerts, receivers, self.counters)
        engine: Any = Engine(matcher, correlator, self.counters, watch=knowing.see)
        if self._hub:
            engine = HubEngine(engine, Engine(matcher, Correlator(self._rules, counter=self.counters), self.counters))
        self.pipeline = Pipeline(
            engine,
            self.state,
            self._rules,
            self.router,
            Policy(self._responding, self._rules, self.guard, HOST, known),
            self.enforcers,
            clock=self.clock,
            counter=self.counters,
            me=own.Self(HOST, "web1"),
            quiet_period=DAY,
            guard_changed=self._guard_changed,
            woken=self._wake,
            retention=self._retention,
            known=known,
            loggers=self.loggers,
            budget=budget_of(self._page_budget, receivers, self.state, HOST, self.clock.now()),
            shelf=self._shelf,
            stream=self._stream,
            trouble=lambda: self.trouble,
        )

    def _guard_changed(self, now: int) -> bool:
        changed, self.allowed_meanwhile = self.allowed_meanwhile, []
        for entry in changed:
            self.guard.allow(entry)
        return bool(changed)

    def _wake(self) -> None:
        self.woken += 1

    # ------------------------------------------------------------------------------------------ what happens
    def line(self, action: str, address: str = ATTACKER, *, at: int | None = None, more: str = "") -> str:
        seconds = (self.clock.now() if at is None else at) / SECOND
        return f"t={seconds:.6f} event.action={action} source.ip={address} host.name=web1 {more}".strip()

    def batch(self, lines: Sequence[str], *, source: str = "journal") -> Batch:
        first = self._position
        self._position += len(lines)
        made = batch_of(lines, first=first, source=source)
        return replace(made, read_at=self.clock.now(), cursor=str(self._position))

    def take(self, *lines: str, source: str = "journal") -> None:
        """One batch of these lines."""
        self.last = self.batch(lines, source=source)
        self.pipeline.take(self.last)

    def attack(self, address: str = ATTACKER, count: int = 3) -> None:
        """As many failures as make a finding, one batch."""
        self.take(*(self.line("failed", address, more=f"source.port={port}") for port in range(count)))

    def wait(self, us: int) -> float:
        """Time passes, then a tick."""
        self.clock.advance(us)
        return self.pipeline.tick()

    # ------------------------------------------------------------------------------------------ what came of it
    def alerts_of(self, rule_id: str) -> list[Alert]:
        return [alert for alert in self.state.alerts() if alert.rule_id == rule_id]

    def decided(self) -> set[str]:
        """Targets of all decisions in the state."""
        return {one.target.value for one in self.state.decisions()}
