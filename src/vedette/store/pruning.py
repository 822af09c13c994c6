"""Lets go of rows that are finished and old, oldest first, so many at a time.
Counterpart: `model.retention.Kept` says what counts as finished; `store.transaction` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Table, and_, delete, or_, select

from vedette.model.alerts import AlertState
from vedette.model.decisions import DecisionState
from vedette.model.notifications import GroupState, OutboxState
from vedette.model.retention import EVIDENCE_SLACK, Kept
from vedette.store.tables import ALERT_GROUPS, ALERTS, DECISIONS, FINDINGS, OUTBOX, REFUSALS, SILENCES

PAGE = 500


class _Evidence(msgspec.Struct):
    finding_ids: list[str] = []


_EVIDENCE = msgspec.json.Decoder(_Evidence)
_GROUP = msgspec.json.Decoder(GroupState)

_FINISHED: dict[Kept, tuple[Table, Column[int], tuple[ColumnElement[bool], ...]]] = {
    Kept.ALERTS: (ALERTS, ALERTS.c.updated_at, (ALERTS.c.state == AlertState.RESOLVED.value,)),
    Kept.FINDINGS: (FINDINGS, FINDINGS.c.created, ()),
    Kept.OUTBOX: (OUTBOX, OUTBOX.c.created_at, (OUTBOX.c.state != OutboxState.PENDING.value,)),
    Kept.REFUSALS: (REFUSALS, REFUSALS.c.at, ()),
    Kept.DECISIONS: (DECISIONS, DECISIONS.c.expires_at, (DECISIONS.c.state != DecisionState.ACTIVE.value,)),
    Kept.SILENCES: (SILENCES, SILENCES.c.ends_at, ()),
    Kept.GROUPS: (ALERT_GROUPS, ALERT_GROUPS.c.last_notified_at, (ALERT_GROUPS.c.due_at == 0,)),
}
"""Table, the column its age is counted from, and what else makes a row finished."""


def prune(connection: Connection, kind: Kept, before: int, limit: int) -> int:
    """Delete at most `limit` finished rows older than `before` (microseconds), oldest first; how many."""
    table, age, finished = _FINISHED[kind]
    (key,) = table.primary_key
    keep = _evidence(connection, before) if kind is Kept.FINDINGS else frozenset()
    columns = [age, key, *([table.c.body] if kind is Kept.GROUPS else [])]
    oldest = select(*columns).where(age < before, *finished).order_by(age, key).limit(PAGE)
    doomed: list[Any] = []
    rows: Sequence[Any] = connection.execute(oldest).all()
    while rows:
        doomed += [row[1] for row in rows if row[1] not in keep and (len(row) < 3 or _is_over(row[2]))]
        if len(doomed) >= limit or len(rows) < PAGE:
            break
        last_age, last_key = rows[-1][0], rows[-1][1]
        beyond = or_(age > last_age, and_(age == last_age, key > last_key))
        rows = connection.execute(oldest.where(beyond)).all()
    doomed = doomed[:limit]
    for start in range(0, len(doomed), PAGE):
        connection.execute(delete(table).where(key.in_(doomed[start : start + PAGE])))
    return len(doomed)


def _evidence(connection: Connection, before: int) -> frozenset[str]:
    """Findings that alerts old enough to have any of them, and not resolved, rest on."""
    unresolved = select(ALERTS.c.body).where(
        ALERTS.c.state != AlertState.RESOLVED.value, ALERTS.c.opened_at < before + EVIDENCE_SLACK
    )
    bodies = connection.execute(unresolved).scalars()
    return frozenset(name for body in bodies for name in _EVIDENCE.decode(body).finding_ids)


def _is_over(body: str) -> bool:
    group = _GROUP.decode(body)
    return not group.members and not group.triggered
