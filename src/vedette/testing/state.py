"""The state in memory: the promises of the store without a disk.
Counterpart: `store.state.State`; one property test holds both to the same answers."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from vedette.model.alerts import Alert, AlertState, Silence
from vedette.model.decisions import Decision, DecisionState, Refusal, Target, TargetKind
from vedette.model.errors import StateError
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.model.notifications import GroupState, NotificationKind, OutboxItem, OutboxState
from vedette.model.retention import EVIDENCE_SLACK, Kept
from vedette.model.rules import RuleKind
from vedette.store.queries import AlertFilter, DecisionFilter, DecisionStats, RefusalCount

T = TypeVar("T")


@dataclass
class _Tables:
    cursors: dict[str, str] = field(default_factory=dict)
    correlation: dict[tuple[str, str], bytes] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    unresolved: dict[str, str] = field(default_factory=dict)
    silences: dict[str, Silence] = field(default_factory=dict)
    groups: dict[str, GroupState] = field(default_factory=dict)
    outbox: dict[str, OutboxItem] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    refusals: list[tuple[int, Refusal]] = field(default_factory=list)

    def snapshot(self) -> _Tables:
        # Shallow: what lies in a table is a copy nobody else holds, and is replaced, never changed.
        return _Tables(**{part.name: copy.copy(getattr(self, part.name)) for part in fields(self)})


def _out(things: Iterable[T]) -> list[T]:
    return [copy.deepcopy(thing) for thing in things]


class MemoryTransaction:
    """`model.protocols.Transaction` over a copy of the tables."""

    def __init__(self, tables: _Tables) -> None:
        self._tables: _Tables | None = tables

    def end(self) -> None:
        """Later calls raise."""
        self._tables = None

    @property
    def _t(self) -> _Tables:
        if self._tables is None:
            raise RuntimeError("this transaction has ended")
        return self._tables

    def save_cursor(self, source: str, cursor: str) -> None:
        self._t.cursors[source] = cursor

    def save_correlation(self, changes: Mapping[tuple[str, str], bytes | None]) -> None:
        for key, state in changes.items():
            if state is None:
                self._t.correlation.pop(key, None)
            else:
                self._t.correlation[key] = state

    def save_findings(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        new = []
        for finding in findings:
            if finding.id not in self._t.findings:
                self._t.findings[finding.id] = copy.deepcopy(finding)
                new.append(finding)
        return new

    def unresolved_alert(self, key: str) -> Alert | None:
        return self.alert(self._t.unresolved.get(key, ""))

    def alert(self, alert_id: str) -> Alert | None:
        return copy.deepcopy(self._t.alerts.get(alert_id))

    def alerts(self, alert_ids: Sequence[str]) -> Sequence[Alert]:
        return _out(self._t.alerts[alert_id] for alert_id in alert_ids if alert_id in self._t.alerts)

    def unresolved_alerts(self) -> Sequence[Alert]:
        found = [a for a in self._t.alerts.values() if a.state is not AlertState.RESOLVED]
        return _out(sorted(found, key=lambda a: (a.opened_at, a.id)))

    def save_alert(self, alert: Alert) -> None:
        before = self._t.alerts.get(alert.id)
        if before is not None and self._t.unresolved.get(before.key) == alert.id:
            del self._t.unresolved[before.key]
        if alert.state is not AlertState.RESOLVED and self._t.unresolved.setdefault(alert.key, alert.id) != alert.id:
            raise StateError(f"two unresolved alerts of one key: {alert.key}")
        self._t.alerts[alert.id] = copy.deepcopy(alert)

    def quiet_alerts(self, before: int) -> Sequence[Alert]:
        return [
            alert
            for alert in self.unresolved_alerts()
            if alert.kind is RuleKind.EVENT
            and alert.level in (Level.LOW, Level.MEDIUM)
            and alert.last_event_at < before
            and alert.updated_at < before
        ]

    def silences(self, now: int) -> Sequence[Silence]:
        return sorted((s for s in self._t.silences.values() if s.ends_at > now), key=lambda s: (s.starts_at, s.id))

    def save_silence(self, silence: Silence) -> None:
        self._t.silences[silence.id] = silence

    def group(self, key: str) -> GroupState | None:
        return copy.deepcopy(self._t.groups.get(key))

    def save_group(self, group: GroupState) -> None:
        self._t.groups[group.key] = copy.deepcopy(group)

    def due_groups(self, now: int) -> Sequence[GroupState]:
        due = [group for group in self._t.groups.values() if 0 < group.due_at <= now]
        return _out(sorted(due, key=lambda group: (group.due_at, group.key)))

    def next_due(self) -> int:
        return min((group.due_at for group in self._t.groups.values() if group.due_at > 0), default=0)

    def enqueue(self, item: OutboxItem) -> None:
        self._t.outbox[item.id] = copy.deepcopy(item)

    def supersede(self, order_key: str) -> Sequence[OutboxItem]:
        found = [
            item
            for item in self._t.outbox.values()
            if item.order_key == order_key
            and item.state is OutboxState.PENDING
            and item.notification.kind is NotificationKind.TRIGGER
        ]
        for item in found:
            self._t.outbox[item.id] = replace(item, state=OutboxState.SUPERSEDED)
        return _out(sorted(found, key=lambda item: (item.sequence, item.id)))

    def save_outbox(self, item: OutboxItem) -> None:
        """As `StateStore.save_outbox`, inside this transaction."""
        stored = self._t.outbox.get(item.id)
        kept = copy.deepcopy(item)
        if stored and stored.state is OutboxState.SUPERSEDED and item.state is not OutboxState.DELIVERED:
            kept.state = OutboxState.SUPERSEDED
        self._t.outbox[item.id] = kept

    def active_decisions(self, now: int) -> Sequence[Decision]:
        found = [d for d in self._t.decisions.values() if d.state is DecisionState.ACTIVE and d.expires_at > now]
        return _out(sorted(found, key=lambda d: (d.starts_at, d.id)))

    def decisions_on(self, target: Target) -> Sequence[Decision]:
        found = [d for d in self._t.decisions.values() if d.target == target]
        return _out(sorted(found, key=lambda d: (d.starts_at, d.id)))

    def save_decision(self, decision: Decision) -> None:
        self._t.decisions[decision.id] = copy.deepcopy(decision)

    def save_refusals(self, refusals: Sequence[Refusal], at: int) -> None:
        self._t.refusals.extend((at, refusal) for refusal in refusals)

    def prune(self, kind: Kept, before: int, limit: int) -> int:
        tables = self._t
        if kind is Kept.REFUSALS:
            ordered = sorted(range(len(tables.refusals)), key=lambda at: (tables.refusals[at][0], at))
            gone = {at for at in ordered if tables.refusals[at][0] < before} & set(ordered[:limit])
            tables.refusals = [one for at, one in enumerate(tables.refusals) if at not in gone]
            return len(gone)
        rows: dict[str, int] = {}
        table: dict[str, Any]
        match kind:
            case Kept.ALERTS:
                table = tables.alerts
                rows = {a.id: a.updated_at for a in tables.alerts.values() if a.state is AlertState.RESOLVED}
            case Kept.FINDINGS:
                table = tables.findings
                old = [a for a in self.unresolved_alerts() if a.opened_at < before + EVIDENCE_SLACK]
                evidence = {name for alert in old for name in alert.finding_ids}
                rows = {f.id: f.created or f.time for f in tables.findings.values() if f.id not in evidence}
            case Kept.OUTBOX:
                table = tables.outbox
                rows = {i.id: i.created_at for i in tables.outbox.values() if i.state is not OutboxState.PENDING}
            case Kept.DECISIONS:
                table = tables.decisions
                rows = {d.id: d.expires_at for d in tables.decisions.values() if d.state is not DecisionState.ACTIVE}
            case Kept.SILENCES:
                table = tables.silences
                rows = {s.id: s.ends_at for s in tables.silences.values()}
            case Kept.GROUPS:
                table = tables.groups
                idle = [g for g in tables.groups.values() if not g.due_at and not g.members and not g.triggered]
                rows = {g.key: g.last_notified_at for g in idle}
        doomed = sorted((age, key) for key, age in rows.items() if age < before)[:limit]
        for _, key in doomed:
            del table[key]
        return len(doomed)


class MemoryState:
    """`model.protocols.StateStore` and the faces' questions, in memory; made anew it is empty."""

    def __init__(self) -> None:
        self.place = "memory"
        self._tables = _Tables()
        self._lock = threading.Lock()
        self._owner = 0

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        """Commit when the block ends, roll back when it raises; one at a time, they do not nest."""
        me = threading.get_ident()
        if self._owner == me:
            raise RuntimeError("transactions do not nest")
        with self._lock:
            self._owner = me
            changed = self._tables.snapshot()
            transaction = MemoryTransaction(changed)
            try:
                yield transaction
                self._tables = changed
            finally:
                transaction.end()
                self._owner = 0

    def save_outbox(self, item: OutboxItem) -> None:
        """Update an item after an attempt; one superseded meanwhile stays so unless it was delivered after all."""
        with self.transaction() as transaction:
            transaction.save_outbox(item)

    def close(self) -> None:
        """Nothing to give back."""

    def _reading(self) -> MemoryTransaction:
        return MemoryTransaction(self._tables)

    def cursors(self) -> Mapping[str, str]:
        """Source name -> what it resumes from."""
        return dict(self._tables.cursors)

    def correlation(self) -> Iterable[tuple[str, str, bytes]]:
        """Every stored (rule id, key text, state)."""
        return [(rule, key, state) for (rule, key), state in self._tables.correlation.items()]

    def pending_outbox(self, now: int, limit: int = 100) -> Sequence[OutboxItem]:
        """Items due by `now`, most urgent first (level, then age); per order_key only the first one."""
        pending = [item for item in self._tables.outbox.values() if item.state is OutboxState.PENDING]
        first: dict[str, int] = {}
        for item in pending:
            first[item.order_key] = min(item.sequence, first.get(item.order_key, item.sequence))
        due = [item for item in pending if item.next_try_at <= now and item.sequence == first[item.order_key]]
        return _out(sorted(due, key=lambda item: (-item.notification.level, item.created_at, item.id))[:limit])

    def finding(self, finding_id: str) -> Finding | None:
        """The finding of this id."""
        return copy.deepcopy(self._tables.findings.get(finding_id))

    def findings(self, finding_ids: Sequence[str]) -> list[Finding]:
        """Those of these ids that are stored, in the order asked for."""
        return _out(self._tables.findings[name] for name in finding_ids if name in self._tables.findings)

    def recent_findings(self, since: int = 0, limit: int = 100) -> list[Finding]:
        """Findings whose event time is at or after `since`, newest first."""
        found = [finding for finding in self._tables.findings.values() if finding.time >= since]
        return _out(sorted(found, key=lambda finding: (-finding.time, finding.id))[:limit])

    def alert(self, alert_id: str) -> Alert | None:
        """The alert of this id."""
        return self._reading().alert(alert_id)

    def alerts(
        self,
        chosen: AlertFilter = AlertFilter(),  # noqa: B008 (frozen)
        *,
        limit: int = 100,
        after: str = "",
        where: Callable[[Alert], bool] | None = None,
    ) -> list[Alert]:
        """At most `limit` alerts, newest opening first; `after`: id of the last one of the page before."""
        everything = self._tables.alerts
        last = (everything[after].opened_at, after) if after in everything else None
        if after and last is None:
            return []
        found = [
            alert
            for alert in everything.values()
            if (not chosen.states or alert.state in chosen.states)
            and alert.level >= chosen.level
            and (not chosen.rule_id or alert.rule_id == chosen.rule_id)
            and (not chosen.host_id or alert.labels.get("host.id", "") == chosen.host_id)
            and alert.updated_at >= chosen.since
            and (last is None or (alert.opened_at, alert.id) < last)
            and (where is None or where(alert))
        ]
        return _out(sorted(found, key=lambda alert: (alert.opened_at, alert.id), reverse=True)[:limit])

    def alert_counts(self) -> dict[tuple[AlertState, Level], int]:
        """How many alerts stand where, by state and level."""
        return dict(Counter((alert.state, alert.level) for alert in self._tables.alerts.values()))

    def silences(self, now: int, *, ended: bool = False) -> list[Silence]:
        """Silences not ended by `now` (not yet begun ones too); with `ended` every one ever made."""
        found = [s for s in self._tables.silences.values() if ended or s.ends_at > now]
        return sorted(found, key=lambda s: (s.starts_at, s.id))

    def groups(self) -> list[GroupState]:
        """Every notification group, by key."""
        return _out(sorted(self._tables.groups.values(), key=lambda group: group.key))

    def next_due(self) -> int:
        """When the earliest group must be looked at, microseconds; 0 = nothing planned."""
        return self._reading().next_due()

    def outbox(self, states: Iterable[OutboxState] = (), limit: int = 100) -> list[OutboxItem]:
        """Outbox items in these states (none named: all), newest first."""
        named = set(states)
        found = [item for item in self._tables.outbox.values() if not named or item.state in named]
        return _out(sorted(found, key=lambda item: (item.created_at, item.id), reverse=True)[:limit])

    def outbox_counts(self) -> dict[OutboxState, int]:
        """How many outbox items stand where."""
        return dict(Counter(item.state for item in self._tables.outbox.values()))

    def active_decisions(self, now: int) -> list[Decision]:
        """Decisions in force, oldest first."""
        return list(self._reading().active_decisions(now))

    def decisions(
        self,
        chosen: DecisionFilter = DecisionFilter(),  # noqa: B008 (frozen)
        *,
        limit: int = 100,
        after: str = "",
    ) -> list[Decision]:
        """At most `limit` decisions, newest first; `after`: id of the last one of the page before."""
        everything = self._tables.decisions
        last = (everything[after].starts_at, after) if after in everything else None
        if after and last is None:
            return []
        found = [
            decision
            for decision in everything.values()
            if (not chosen.states or decision.state in chosen.states)
            and (not chosen.value or decision.target.value == chosen.value)
            and (not chosen.owner or decision.owner == chosen.owner)
            and decision.starts_at >= chosen.since
            and (last is None or (decision.starts_at, decision.id) < last)
        ]
        return _out(sorted(found, key=lambda decision: (decision.starts_at, decision.id), reverse=True)[:limit])

    def decision_stats(self, since: int, now: int) -> DecisionStats:
        """Decisions begun at or after `since`; `active` counts those in force at `now`."""
        begun = [decision for decision in self._tables.decisions.values() if decision.starts_at >= since]
        targets: dict[str, set[str]] = {}
        for decision in begun:
            targets.setdefault(decision.owner, set()).add(decision.target.value)
        by_owner = Counter(decision.owner for decision in begun)
        return DecisionStats(
            total=len(begun),
            addresses=len({d.target.value for d in begun if d.target.kind is TargetKind.ADDRESS}),
            active=sum(d.state is DecisionState.ACTIVE and d.expires_at > now for d in begun),
            by_state=dict(Counter(decision.state for decision in begun)),
            by_owner={owner: (n, len(targets[owner])) for owner, n in by_owner.items()},
        )

    def refusal_counts(self, since: int = 0) -> list[RefusalCount]:
        """Refusals at or after `since`, most frequent first."""
        counted = Counter((refusal.rule_id, refusal.reason) for at, refusal in self._tables.refusals if at >= since)
        ordered = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))
        return [RefusalCount(rule, reason, n) for (rule, reason), n in ordered]
