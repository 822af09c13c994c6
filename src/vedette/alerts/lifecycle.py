"""Findings to alerts: at most one unresolved alert a key, and how it is acknowledged and resolved.
Counterpart: `detections` give the findings, `alerts.routing` is told every change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from vedette.alerts.keys import alert_key, finding_fields, key_fields, labels_of
from vedette.model.alerts import Alert, AlertChange, AlertState, ChangeKind, Disposition, ResolveReason
from vedette.model.errors import VedetteError
from vedette.model.findings import EVIDENCE_LIMIT, Continuation, Finding
from vedette.model.ids import uuid7
from vedette.model.levels import Level
from vedette.model.protocols import Counter, Transaction
from vedette.model.rules import Rule, RuleKind

QUIET_LEVELS = frozenset({Level.LOW, Level.MEDIUM})


class Unused(StrEnum):
    """Why a finding or continuation changed no alert; counted as `alerts_unused`."""

    ALREADY_STORED = "already-stored"
    INFORMATIONAL = "informational"
    NOTHING_TO_CONTINUE = "nothing-to-continue"
    NOTHING_TO_CLEAR = "nothing-to-clear"


class AlertError(VedetteError):
    """A verb that does not fit the alert it was said of."""


@dataclass
class _Work:
    """Alerts touched by one call, by id and unresolved by key, saved once at its end."""

    tx: Transaction
    now: int
    touched: dict[str, Alert] = field(default_factory=dict)
    unresolved: dict[str, Alert | None] = field(default_factory=dict)
    changes: dict[tuple[str, ChangeKind], AlertChange] = field(default_factory=dict)

    def find(self, key: str) -> Alert | None:
        if key not in self.unresolved:
            self.unresolved[key] = self.tx.unresolved_alert(key)
        return self.unresolved[key]

    def changed(self, alert: Alert, kind: ChangeKind) -> None:
        alert.updated_at = max(alert.updated_at, self.now)
        self.touched[alert.id] = alert
        self.unresolved[alert.key] = None if alert.state is AlertState.RESOLVED else alert
        # An alert opened in this very call was not known before: more findings are part of its opening.
        if kind is not ChangeKind.UPDATED or (alert.id, ChangeKind.OPENED) not in self.changes:
            self.changes.setdefault((alert.id, kind), AlertChange(alert, kind, self.now))

    def finish(self) -> list[AlertChange]:
        # Resolved ones first: a key is free before its next alert takes it.
        for alert in sorted(self.touched.values(), key=lambda alert: alert.state is not AlertState.RESOLVED):
            self.tx.save_alert(alert)
        return list(self.changes.values())


def _event_at(alert: Alert, time: int, now: int) -> None:
    # A clock that runs ahead must not keep an alert from ever becoming quiet.
    alert.last_event_at = max(alert.last_event_at, min(time, now))


def _open(finding: Finding, rule: Rule | None, key: str, labels: dict[str, str], now: int) -> Alert:
    return Alert(
        id=uuid7(now),
        key=key,
        rule_id=finding.rule_id,
        rule_name=finding.rule_name,
        level=finding.level,
        kind=rule.kind if rule else RuleKind.EVENT,
        labels=labels,
        opened_at=now,
        summary=summary_of(finding),
        advice=rule.advice if rule else "",
    )


def summary_of(finding: Finding) -> str:
    """One line for a person, raw text: `NAME: field=value ... on HOST`."""
    named = {name: value for name, value in finding.key.items() if name not in ("host.id", "host.name")}
    parts = [f"{name}={value}" for name, value in named.items() if value is not None]
    what = (
        f"{finding.rule_name or finding.rule_id}: {' '.join(parts)}" if parts else finding.rule_name or finding.rule_id
    )
    return f"{what} on {finding.host_name}" if finding.host_name else what


def apply(
    findings: Sequence[Finding],
    continuations: Sequence[Continuation],
    tx: Transaction,
    now: int,
    rules: Mapping[str, Rule],
    counter: Counter,
    *,
    host_id: str = "",
) -> list[AlertChange]:
    """Store the findings and change alerts accordingly; what changed, in order, each (alert, kind) once.

    A finding that was stored before (replay after a crash) changes nothing. An informational one is stored
    and opens no alert. One that `clears` resolves the condition alert with the same key fields. host_id: of
    continuations that name none. Unused ones are counted by reason.
    """
    work = _Work(tx, now)
    new = tx.save_findings(findings)
    if len(new) < len(findings):
        counter.add("alerts_unused", Unused.ALREADY_STORED, len(findings) - len(new))
    for finding in new:
        if finding.clears:
            _clear(work, finding, rules, counter)
        if finding.level is Level.INFORMATIONAL:
            if not finding.clears:
                counter.add("alerts_unused", Unused.INFORMATIONAL)
            continue
        _add(work, finding, rules.get(finding.rule_id))
    for continuation in continuations:
        rule = rules.get(continuation.rule_id)
        fields = key_fields(rule, continuation.key, continuation.host_id or host_id, {})
        alert = work.find(alert_key(continuation.rule_id, fields))
        if alert is None:
            counter.add("alerts_unused", Unused.NOTHING_TO_CONTINUE, continuation.count)
            continue
        alert.count += continuation.count
        _event_at(alert, continuation.time, now)
        work.changed(alert, ChangeKind.UPDATED)
    return work.finish()


def _add(work: _Work, finding: Finding, rule: Rule | None) -> None:
    fields = finding_fields(finding, rule)
    key = alert_key(finding.rule_id, fields)
    alert = work.find(key)
    kind = ChangeKind.UPDATED
    if alert is None:
        alert = _open(finding, rule, key, labels_of(finding, fields, rule), work.now)
        kind = ChangeKind.OPENED
    alert.count += finding.count
    alert.finding_count += 1
    if len(alert.finding_ids) < EVIDENCE_LIMIT:
        alert.finding_ids.append(finding.id)
    alert.sample = finding.sample or alert.sample
    _event_at(alert, finding.time, work.now)
    work.changed(alert, kind)


def _clear(work: _Work, finding: Finding, rules: Mapping[str, Rule], counter: Counter) -> None:
    rule = rules.get(finding.rule_id)
    fields = finding_fields(finding, rule)
    cleared = rules.get(finding.clears)
    names = () if cleared is None else cleared.correlate.group_by if cleared.correlate else cleared.key
    if names:
        # The clearing rule may know more than the condition was keyed by.
        fields = {name: value for name, value in fields.items() if name in names or name == "host.id"}
    if cleared is not None and cleared.scope is not (rule.scope if rule else cleared.scope):
        fields = key_fields(cleared, {n: v for n, v in fields.items() if n != "host.id"}, finding.host_id, {})
    alert = work.find(alert_key(finding.clears, fields))
    if alert is None or alert.kind is not RuleKind.CONDITION:
        counter.add("alerts_unused", Unused.NOTHING_TO_CLEAR)
        return
    _event_at(alert, finding.time, work.now)
    _resolved(alert, work.now, finding.rule_id, ResolveReason.CLEARED)
    work.changed(alert, ChangeKind.RESOLVED)


def _resolved(alert: Alert, now: int, by: str, reason: ResolveReason) -> None:
    alert.state = AlertState.RESOLVED
    alert.resolved_at = now
    alert.resolved_by = by
    alert.resolve_reason = reason


def _wanted(tx: Transaction, alert_id: str) -> Alert:
    alert = tx.alert(alert_id)
    if alert is None:
        raise AlertError(f"there is no alert {alert_id!r}", hint="`vedette alerts list` names them")
    return alert


def _noted(alert: Alert, text: str) -> None:
    if text:
        alert.note = f"{alert.note}\n{text}" if alert.note else text


def acknowledge(tx: Transaction, alert_id: str, by: str, now: int, note: str = "") -> list[AlertChange]:
    """Somebody looks after it. Once more changes nothing; AlertError when it is resolved or unknown."""
    alert = _wanted(tx, alert_id)
    if alert.state is AlertState.RESOLVED:
        raise AlertError(f"alert {alert_id} is resolved already", hint="the next finding opens a new one")
    work = _Work(tx, now)
    _noted(alert, note)
    kind = ChangeKind.UPDATED
    if alert.state is AlertState.OPEN:
        alert.state = AlertState.ACKNOWLEDGED
        alert.acknowledged_at, alert.acknowledged_by = now, by
        kind = ChangeKind.ACKNOWLEDGED
    elif not note:
        return []
    work.changed(alert, kind)
    return work.finish()


def resolve(
    tx: Transaction,
    alert_id: str,
    by: str,
    disposition: Disposition,
    now: int,
    note: str = "",
    *,
    reason: ResolveReason = ResolveReason.OPERATOR,
) -> list[AlertChange]:
    """A person closes it; an event alert only with a disposition (a pager, which knows none, excepted).

    An alert already resolved without a disposition takes one afterwards. AlertError when it is unknown or
    the disposition is missing.
    """
    alert = _wanted(tx, alert_id)
    if disposition is Disposition.NONE and alert.kind is RuleKind.EVENT and reason is ResolveReason.OPERATOR:
        names = ", ".join(each for each in Disposition if each is not Disposition.NONE)
        raise AlertError(f"alert {alert_id} needs a disposition to be resolved", hint=f"say what it was: {names}")
    work = _Work(tx, now)
    kind = ChangeKind.UPDATED
    if alert.state is not AlertState.RESOLVED:
        _resolved(alert, now, by, reason)
        kind = ChangeKind.RESOLVED
    elif not note and disposition in (Disposition.NONE, alert.disposition):
        return []
    _noted(alert, note)
    if disposition is not Disposition.NONE:
        alert.disposition = disposition
    work.changed(alert, kind)
    return work.finish()


def acknowledge_all(tx: Transaction, alert_ids: Iterable[str], by: str, now: int) -> list[AlertChange]:
    """Acknowledge those of these alerts that are open (a pager says so of a whole incident)."""
    work = _Work(tx, now)
    for alert in tx.alerts(list(alert_ids)):
        if alert.state is AlertState.OPEN:
            alert.state = AlertState.ACKNOWLEDGED
            alert.acknowledged_at, alert.acknowledged_by = now, by
            work.changed(alert, ChangeKind.ACKNOWLEDGED)
    return work.finish()


def resolve_all(tx: Transaction, alert_ids: Iterable[str], by: str, now: int) -> list[AlertChange]:
    """Resolve those of these alerts that are not (a pager says so of a whole incident); dispositions may follow."""
    work = _Work(tx, now)
    for alert in tx.alerts(list(alert_ids)):
        if alert.state is not AlertState.RESOLVED:
            _resolved(alert, now, by, ResolveReason.PAGER)
            work.changed(alert, ChangeKind.RESOLVED)
    return work.finish()


def add_note(tx: Transaction, alert_id: str, text: str, now: int) -> list[AlertChange]:
    """A person's words, kept with the alert whatever its state. AlertError when it is unknown."""
    alert = _wanted(tx, alert_id)
    work = _Work(tx, now)
    _noted(alert, text)
    work.changed(alert, ChangeKind.UPDATED)
    return work.finish()


def resolve_quiet(tx: Transaction, now: int, quiet_period: int) -> list[AlertChange]:
    """Resolve event alerts of level low and medium that were quiet for `quiet_period` microseconds."""
    work = _Work(tx, now)
    for alert in _may_be_quiet(tx.quiet_alerts(now - quiet_period)):
        _resolved(alert, now, "", ResolveReason.QUIET)
        work.changed(alert, ChangeKind.RESOLVED)
    return work.finish()


def _may_be_quiet(alerts: Iterable[Alert]) -> list[Alert]:
    # Asked again here: a high alert that closed itself would be the worst of our defects.
    return [alert for alert in alerts if alert.level in QUIET_LEVELS and alert.kind is RuleKind.EVENT]
