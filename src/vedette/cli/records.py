"""Findings, alerts, silences and decisions as JSON records: flat names, RFC 3339 times, null for what is not.
Counterpart: `output.json_line` writes them; docs/cli.md lists the fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vedette.model.findings import Finding
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from vedette.model.alerts import Alert, Silence
    from vedette.model.decisions import Decision


def time_or_none(time: int) -> str | None:
    """Microseconds as text; None for 0, which stands for "not yet"."""
    return rfc3339(time) if time else None


def finding_record(finding: Finding) -> dict[str, Any]:
    """A finding as the command contract wants it."""
    return {
        "finding.id": finding.id,
        "rule.id": finding.rule_id,
        "rule.name": finding.rule_name,
        "level": finding.level.label,
        "@timestamp": rfc3339(finding.time),
        "key": finding.key,
        "host.name": finding.host_name or None,
        "source.ip": finding.source_ip or None,
        "user.name": finding.user_name or None,
        "count": finding.count,
        "records": [{"file": record.file, "line": record.line} for record in finding.records],
        "vedette.blame": finding.blame.value,
        "vedette.inexact": finding.inexact,
    }


def stored_finding_record(finding: Finding) -> dict[str, Any]:
    """A finding of a running `up`: its evidence is named by record id, not by file and line."""
    return {
        **finding_record(finding),
        "records": [{"record.id": one.record_id, "@timestamp": rfc3339(one.time)} for one in finding.records],
        "sample": finding.sample or None,
    }


def alert_record(alert: Alert) -> dict[str, Any]:
    """An alert, without its findings."""
    return {
        "alert.id": alert.id,
        "alert.state": alert.state.value,
        "rule.id": alert.rule_id,
        "rule.name": alert.rule_name,
        "level": alert.level.label,
        "kind": alert.kind.value,
        "host.name": alert.labels.get("host.name") or None,
        "source.ip": alert.labels.get("source.ip") or None,
        "user.name": alert.labels.get("user.name") or None,
        "labels": alert.labels,
        "count": alert.count,
        "findings.count": alert.finding_count,
        "opened_at": time_or_none(alert.opened_at),
        "updated_at": time_or_none(alert.updated_at),
        "last_event_at": time_or_none(alert.last_event_at),
        "acknowledged_at": time_or_none(alert.acknowledged_at),
        "acknowledged_by": alert.acknowledged_by or None,
        "resolved_at": time_or_none(alert.resolved_at),
        "resolved_by": alert.resolved_by or None,
        "resolve_reason": alert.resolve_reason.value,
        "disposition": alert.disposition.value,
        "note": alert.note or None,
        "summary": alert.summary,
        "sample": alert.sample or None,
        "advice": alert.advice or None,
    }


def silence_record(silence: Silence, matchers: list[str]) -> dict[str, Any]:
    """A silence; matchers: as text."""
    return {
        "silence.id": silence.id,
        "matchers": matchers,
        "starts_at": rfc3339(silence.starts_at),
        "ends_at": rfc3339(silence.ends_at),
        "created_by": silence.created_by,
        "comment": silence.comment,
    }


def decision_record(decision: Decision) -> dict[str, Any]:
    """A decision, in force or past."""
    return {
        "decision.id": decision.id,
        "decision.state": decision.state.value,
        "target": decision.target.value,
        "target.kind": decision.target.kind.value,
        "owner": decision.owner,
        "reason": decision.reason,
        "starts_at": rfc3339(decision.starts_at),
        "expires_at": rfc3339(decision.expires_at),
        "offence": decision.offence,
        "override": decision.override,
        "alert.id": decision.alert_id or None,
        "finding.id": decision.finding_id or None,
        "evidence": list(decision.evidence),
        "ended_at": time_or_none(decision.ended_at),
        "ended_by": decision.ended_by or None,
        "lift_reason": decision.lift_reason.value,
    }
