"""A script language in time for alerts and notifications, and the rules its findings are of.
Counterpart: test_routing.py and test_lifecycle.py, which are written in it."""

from __future__ import annotations

import itertools
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from vedette.alerts import lifecycle, silences
from vedette.alerts.routes import ReceiverKind
from vedette.alerts.routing import Router
from vedette.alerts.settings import AlertsSettings
from vedette.model.alerts import Alert, AlertChange, AlertState, Disposition
from vedette.model.findings import Continuation, Finding
from vedette.model.levels import Level
from vedette.model.notifications import Notification, OutboxState
from vedette.model.protocols import Transaction
from vedette.model.rules import NotifyStep, Rule, RuleKind, Scope
from vedette.store.state import State
from vedette.testing.state import MemoryState
from vedette.text.times import parse_duration

HOST = "11111111-1111-7111-8111-111111111111"
START = 1_700_000_000_000_000

PAGE_AND_MAIL = {"pager": ReceiverKind.PAGE, "mail": ReceiverKind.MAIL}


def rule(
    ident: str, level: Level, kind: RuleKind = RuleKind.EVENT, clears: str = "", scope: Scope = Scope.HOST
) -> Rule:
    return Rule(ident, ident.title(), level, kind=kind, key=("source.ip",), clears=clears, scope=scope, advice="look")


RULES = {
    each.id: each
    for each in (
        rule("note", Level.INFORMATIONAL),
        rule("probe", Level.LOW),
        rule("guess", Level.MEDIUM),
        rule("break-in", Level.HIGH),
        rule("root", Level.CRITICAL),
        rule("port-open", Level.HIGH, RuleKind.CONDITION),
        rule("port-closed", Level.INFORMATIONAL, clears="port-open"),
        rule("fleet-wide", Level.HIGH, scope=Scope.FLEET),
        replace(rule("kept", Level.CRITICAL), step=NotifyStep.STORE),
        replace(rule("collected", Level.CRITICAL), step=NotifyStep.DIGEST),
        replace(rule("mailed", Level.CRITICAL), step=NotifyStep.MAIL),
    )
}

_numbers = itertools.count()


def finding(rule_id: str, address: str, time: int, *, ident: str = "", host_id: str = HOST, count: int = 1) -> Finding:
    made_of = RULES[rule_id]
    return Finding(
        id=ident or f"f{next(_numbers)}",
        rule_id=rule_id,
        rule_name=made_of.name,
        level=made_of.level,
        time=time,
        key={"source.ip": address},
        host_id=host_id,
        host_name="web01",
        source_ip=address,
        user_name="",
        count=count,
        records=(),
        sample=f"a line about {address}",
        clears=made_of.clears,
    )


@dataclass
class Counted:
    """A Counter that can be asked."""

    tally: Tally[tuple[str, str]] = field(default_factory=Tally)

    def add(self, name: str, reason: Enum | str = "", n: int = 1) -> None:
        self.tally[name, str(reason.value if isinstance(reason, Enum) else reason)] += n


@dataclass(frozen=True)
class Told:
    """One notification as scripts write it."""

    at: int
    receiver: str
    kind: str
    total: int

    def __str__(self) -> str:
        return f"{self.at / 1e6:g}s {self.receiver} {self.kind} {self.total}"


class Stage:
    """Runs alerts and routing over a store, one step at a time, flushing whenever something is due."""

    def __init__(
        self,
        settings: AlertsSettings | None = None,
        receivers: dict[str, ReceiverKind] | None = None,
        store: State | MemoryState | None = None,
        reopen: Callable[[], State] | None = None,
    ) -> None:
        self.settings = settings or AlertsSettings()
        self.receivers = PAGE_AND_MAIL if receivers is None else receivers
        self.counted = Counted()
        self.store = store or MemoryState()
        self.reopen = reopen
        self.now = START
        self.told: list[tuple[int, Notification]] = []
        self.router = Router(self.settings, self.receivers, self.counted)
        self.silenced: list[str] = []

    def restart(self) -> None:
        if self.reopen is not None:
            self.store.close()
            self.store = self.reopen()
        self.router = Router(self.settings, self.receivers, self.counted)

    def change(self, act: Callable[[Transaction], list[AlertChange]]) -> list[AlertChange]:
        with self.store.transaction() as tx:
            changes = act(tx)
            items = self.router.plan(changes, tx, self.now)
        self.told += [(self.now, item.notification) for item in items]
        return changes

    def flush(self) -> list[Notification]:
        with self.store.transaction() as tx:
            items = self.router.flush(tx, self.now)
        made = [item.notification for item in items]
        self.told += [(self.now, notification) for notification in made]
        return made

    def go_to(self, time: int) -> None:
        """Let time pass, looking when the router says so."""
        while True:
            with self.store.transaction() as tx:
                due = self.router.next_due(tx)
            if not due or due > time:
                break
            self.now = max(self.now, due)
            self.flush()
            if self.reopen is not None:
                self.restart()
        self.now = max(self.now, time)

    def find(self, rule_id: str, address: str) -> Alert:
        found = self.store.alerts(
            limit=10_000, where=lambda a: a.rule_id == rule_id and a.labels["source.ip"] == address
        )
        assert found, f"no alert of {rule_id} {address}"
        # Ids of one moment are in no order: the one that is not resolved is the newest.
        return min(found, key=lambda alert: alert.state is AlertState.RESOLVED)

    def findings(self, found: Iterable[Finding], continued: Iterable[Continuation] = ()) -> list[AlertChange]:
        return self.change(
            lambda tx: lifecycle.apply(list(found), list(continued), tx, self.now, RULES, self.counted, host_id=HOST)
        )

    def do(self, verb: str, *words: str) -> None:
        now = self.now
        match verb:
            case "finding":
                rule_id, *addresses = words
                self.findings([finding(rule_id, address, now) for address in addresses])
            case "at-once":
                address, *rule_ids = words
                self.findings([finding(rule_id, address, now) for rule_id in rule_ids])
            case "many":
                rule_id, count = words
                self.findings([finding(rule_id, f"10.0.{n // 250}.{n % 250}", now) for n in range(int(count))])
            case "ack":
                for address in words[1:]:
                    ident = self.find(words[0], address).id
                    self.change(lambda tx, ident=ident: lifecycle.acknowledge(tx, ident, "ada", now))
            case "resolve":
                for address in words[1:]:
                    ident = self.find(words[0], address).id
                    self.change(
                        lambda tx, ident=ident: lifecycle.resolve(tx, ident, "ada", Disposition.TRUE_POSITIVE, now)
                    )
            case "resolve-all":
                everything = [a.id for a in self.store.alerts(limit=10_000) if a.rule_id == words[0]]
                self.change(lambda tx: lifecycle.resolve_all(tx, everything, "pager", now))
            case "quiet":
                self.change(lambda tx: lifecycle.resolve_quiet(tx, now, parse_duration(words[0])))
            case "silence":
                duration, *texts = words
                with self.store.transaction() as tx:
                    made = silences.add(
                        tx,
                        silences.parse_matchers(texts),
                        "ada",
                        "",
                        now,
                        parse_duration(duration),
                        longest=parse_duration(self.settings.silences.longest),
                    )
                self.silenced.append(made.id)
            case "expire":
                with self.store.transaction() as tx:
                    silences.expire(tx, self.silenced.pop(), now)
            case "deliver":
                while pending := self.store.pending_outbox(now, 1):
                    pending[0].state = OutboxState.DELIVERED
                    self.store.save_outbox(pending[0])
            case "restart":
                self.restart()
            case _:
                raise ValueError(f"unknown verb {verb!r}")


def play(stage: Stage, script: str) -> tuple[list[str], list[str]]:
    """Run a script; what was expected and what was told, as text, in order.

    A line is `TIME VERB WORDS...`; a line `TIME expect RECEIVER KIND TOTAL` says what is told then. After
    each step what is due is told.
    """
    expected: list[str] = []
    steps: dict[int, list[list[str]]] = {}
    for line in script.strip().splitlines():
        text, verb, *words = line.split("#")[0].split()
        time = parse_duration(text)
        if verb == "expect":
            receiver, kind, total = words
            expected.append(str(Told(time, receiver, kind, int(total))))
            steps.setdefault(time, [])
        else:
            steps.setdefault(time, []).append([verb, *words])
    for time in sorted(steps):
        stage.go_to(START + time)
        for verb, *words in steps[time]:
            stage.do(verb, *words)
            if stage.reopen is not None:
                stage.restart()
            stage.go_to(stage.now)
    told = [str(Told(at - START, n.receiver, n.kind.value, n.total)) for at, n in stage.told]
    return expected, told


def unresolved_keys(store: State | MemoryState) -> list[str]:
    return [alert.key for alert in store.alerts(limit=10_000) if alert.state is not AlertState.RESOLVED]
