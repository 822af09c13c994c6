"""One commit point's reads and writes on the writer's connection, as `model.protocols.Transaction` has it.
Counterpart: `store.state`, which begins and ends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import BindParameter, Connection, Table, bindparam, delete, exists, func, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Insert

from vedette.model.alerts import Alert, AlertState, Silence
from vedette.model.decisions import Decision, DecisionState, Refusal, Target
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.model.notifications import GroupState, NotificationKind, OutboxItem, OutboxState
from vedette.model.retention import Kept
from vedette.model.rules import RuleKind
from vedette.store.pruning import prune
from vedette.store.running import Compiler, Row, Runner
from vedette.store.tables import (
    ALERT_GROUPS,
    ALERTS,
    CORRELATION,
    CURSORS,
    DECISIONS,
    FINDINGS,
    OUTBOX,
    REFUSALS,
    SILENCES,
)

T = TypeVar("T")

# SQLite takes 32,766 parameters a statement; small chunks keep compiled statements few and alike.
CHUNK = 500

_encode = msgspec.json.Encoder().encode
FINDING = msgspec.json.Decoder(Finding)
ALERT = msgspec.json.Decoder(Alert)
SILENCE = msgspec.json.Decoder(Silence)
GROUP = msgspec.json.Decoder(GroupState)
ITEM = msgspec.json.Decoder(OutboxItem)
DECISION = msgspec.json.Decoder(Decision)


def body_of(thing: object) -> str:
    """The whole thing as JSON text."""
    return _encode(thing).decode()


def column_text(text: str) -> str:
    """Text for a column: PostgreSQL takes no NUL; the body keeps it (escaped)."""
    return text.replace("\0", "\ufffd")


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """`ids` in runs that fit into one statement."""
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def outbox_row(item: OutboxItem) -> Row:
    """The columns of an outbox item."""
    return {
        "id": item.id,
        "order_key": item.order_key,
        "sequence": item.sequence,
        "state": item.state.value,
        "kind": item.notification.kind.value,
        "level": item.notification.level.value,
        "receiver": item.notification.receiver,
        "next_try_at": item.next_try_at,
        "created_at": item.created_at,
        "body": body_of(item),
    }


class Statements:
    """Every statement that writing needs, built once a store so that each is compiled once."""

    def __init__(self, dialect: str) -> None:
        self.compiler = Compiler()
        self._insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        self.save_cursor = self._upsert(CURSORS)
        self.save_correlation = self._upsert(CORRELATION)
        self.drop_correlation = delete(CORRELATION).where(
            CORRELATION.c.rule_id == bindparam("of_rule"), CORRELATION.c.key == bindparam("of_key")
        )
        self.insert_finding = self._insert(FINDINGS)
        self.save_alert = self._upsert(ALERTS)
        self.save_silence = self._upsert(SILENCES)
        self.save_group = self._upsert(ALERT_GROUPS)
        self.save_item = self._upsert(OUTBOX)
        self.save_decision = self._upsert(DECISIONS)
        self.insert_refusal = self._insert(REFUSALS)

        ids: BindParameter[Sequence[str]] = bindparam("ids", expanding=True)
        self.known_finding = select(FINDINGS.c.id).where(FINDINGS.c.id == bindparam("id"))
        self.known_findings = select(FINDINGS.c.id).where(FINDINGS.c.id.in_(ids))
        self.findings = select(FINDINGS.c.body).where(FINDINGS.c.id.in_(ids))
        self.alert = select(ALERTS.c.body).where(ALERTS.c.id == bindparam("id"))
        self.alerts = select(ALERTS.c.id, ALERTS.c.body).where(ALERTS.c.id.in_(ids))
        # Written out, not bound: only so does the partial index serve.
        unresolved = ALERTS.c.state != literal_column(f"'{AlertState.RESOLVED.value}'")
        self.unresolved_alert = select(ALERTS.c.body).where(ALERTS.c.key == bindparam("key"), unresolved)
        self.unresolved_alerts = select(ALERTS.c.body).where(unresolved).order_by(ALERTS.c.opened_at, ALERTS.c.id)
        self.quiet_alerts = (
            select(ALERTS.c.body)
            .where(
                unresolved,
                ALERTS.c.kind == RuleKind.EVENT.value,
                ALERTS.c.level.in_([Level.LOW.value, Level.MEDIUM.value]),
                ALERTS.c.last_event_at < bindparam("before"),
                ALERTS.c.updated_at < bindparam("before"),
            )
            .order_by(ALERTS.c.opened_at, ALERTS.c.id)
        )
        self.silences = (
            select(SILENCES.c.body)
            .where(SILENCES.c.ends_at > bindparam("now"))
            .order_by(SILENCES.c.starts_at, SILENCES.c.id)
        )
        self.group = select(ALERT_GROUPS.c.body).where(ALERT_GROUPS.c.key == bindparam("key"))
        self.due_groups = (
            select(ALERT_GROUPS.c.body)
            .where(ALERT_GROUPS.c.due_at > 0, ALERT_GROUPS.c.due_at <= bindparam("now"))
            .order_by(ALERT_GROUPS.c.due_at, ALERT_GROUPS.c.key)
        )
        self.next_due = select(func.min(ALERT_GROUPS.c.due_at)).where(ALERT_GROUPS.c.due_at > 0)
        pending = OUTBOX.c.state == OutboxState.PENDING.value
        self.pending_triggers = (
            select(OUTBOX.c.body)
            .where(
                OUTBOX.c.order_key == bindparam("order_key"),
                pending,
                OUTBOX.c.kind == NotificationKind.TRIGGER.value,
            )
            .order_by(OUTBOX.c.sequence, OUTBOX.c.id)
        )
        earlier = OUTBOX.alias("earlier")
        self.pending_outbox = (
            select(OUTBOX.c.body)
            .where(
                pending,
                OUTBOX.c.next_try_at <= bindparam("now"),
                ~exists().where(
                    earlier.c.order_key == OUTBOX.c.order_key,
                    earlier.c.state == OutboxState.PENDING.value,
                    earlier.c.sequence < OUTBOX.c.sequence,
                ),
            )
            .order_by(OUTBOX.c.level.desc(), OUTBOX.c.created_at, OUTBOX.c.id)
            .limit(bindparam("limit"))
        )
        self.item_state = select(OUTBOX.c.state).where(OUTBOX.c.id == bindparam("id"))
        self.active_decisions = (
            select(DECISIONS.c.body)
            .where(DECISIONS.c.state == DecisionState.ACTIVE.value, DECISIONS.c.expires_at > bindparam("now"))
            .order_by(DECISIONS.c.starts_at, DECISIONS.c.id)
        )
        self.decisions_on = (
            select(DECISIONS.c.body)
            .where(DECISIONS.c.target_kind == bindparam("kind"), DECISIONS.c.target_value == bindparam("value"))
            .order_by(DECISIONS.c.starts_at, DECISIONS.c.id)
        )

    def _upsert(self, table: Table) -> Insert:
        statement = self._insert(table)
        keys = [column.name for column in table.primary_key]
        changed = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
        return statement.on_conflict_do_update(index_elements=keys, set_=changed)


class StateTransaction:
    """`model.protocols.Transaction` on one connection; of no use once its context has ended."""

    def __init__(self, connection: Connection, statements: Statements) -> None:
        self._connection: Connection | None = connection
        self._runner = Runner(connection, statements.compiler)
        self._statements = statements

    def end(self) -> None:
        """Let go of the connection: later calls raise instead of writing outside the transaction."""
        self._connection = None

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("this transaction has ended")
        return self._connection

    @property
    def _run(self) -> Runner:
        if self._connection is None:
            raise RuntimeError("this transaction has ended")
        return self._runner

    # ---------------------------------------------------------------- cursors and correlation state
    def save_cursor(self, source: str, cursor: str) -> None:
        self._run.write(self._statements.save_cursor, [{"source": source, "cursor": column_text(cursor)}])

    def save_correlation(self, changes: Mapping[tuple[str, str], bytes | None]) -> None:
        kept = [
            {"rule_id": rule, "key": key, "state": state} for (rule, key), state in changes.items() if state is not None
        ]
        gone = [{"of_rule": rule, "of_key": key} for (rule, key), state in changes.items() if state is None]
        self._run.write(self._statements.save_correlation, kept)
        self._run.write(self._statements.drop_correlation, gone)

    # ---------------------------------------------------------------- findings and alerts
    def save_findings(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        first = {finding.id: finding for finding in reversed(findings)}
        known: set[str] = set()
        for run in chunks(list(first)):
            if len(run) == 1:
                known.update(self._run.column(self._statements.known_finding, {"id": run[0]}))
            else:
                known.update(self._run.column(self._statements.known_findings, {"ids": run}))
        new: list[Finding] = []
        for finding in findings:
            if finding.id not in known:
                known.add(finding.id)
                new.append(finding)
        if new:
            rows = [
                {
                    "id": f.id,
                    "rule_id": f.rule_id,
                    "level": f.level.value,
                    "time": f.time,
                    "body": body_of(f),
                    "created": f.created or f.time,
                }
                for f in new
            ]
            self._run.write(self._statements.insert_finding, rows)
        return new

    def unresolved_alert(self, key: str) -> Alert | None:
        return self._one(ALERT, self._statements.unresolved_alert, {"key": key})

    def alert(self, alert_id: str) -> Alert | None:
        return self._one(ALERT, self._statements.alert, {"id": alert_id})

    def alerts(self, alert_ids: Sequence[str]) -> Sequence[Alert]:
        found: dict[str, str] = {}
        for run in chunks(alert_ids):
            found.update((row[0], row[1]) for row in self._run.rows(self._statements.alerts, {"ids": run}))
        return [ALERT.decode(found[alert_id]) for alert_id in alert_ids if alert_id in found]

    def unresolved_alerts(self) -> Sequence[Alert]:
        return self._many(ALERT, self._statements.unresolved_alerts, {})

    def save_alert(self, alert: Alert) -> None:
        row = {
            "id": alert.id,
            "key": alert.key,
            "rule_id": alert.rule_id,
            "host_id": column_text(alert.labels.get("host.id", "")),
            "level": alert.level.value,
            "kind": alert.kind.value,
            "state": alert.state.value,
            "opened_at": alert.opened_at,
            "updated_at": alert.updated_at,
            "last_event_at": alert.last_event_at,
            "body": body_of(alert),
        }
        self._run.write(self._statements.save_alert, [row])

    def quiet_alerts(self, before: int) -> Sequence[Alert]:
        return self._many(ALERT, self._statements.quiet_alerts, {"before": before})

    def silences(self, now: int) -> Sequence[Silence]:
        return self._many(SILENCE, self._statements.silences, {"now": now})

    def save_silence(self, silence: Silence) -> None:
        row = {
            "id": silence.id,
            "starts_at": silence.starts_at,
            "ends_at": silence.ends_at,
            "body": body_of(silence),
        }
        self._run.write(self._statements.save_silence, [row])

    # ---------------------------------------------------------------- groups and outbox
    def group(self, key: str) -> GroupState | None:
        return self._one(GROUP, self._statements.group, {"key": column_text(key)})

    def save_group(self, group: GroupState) -> None:
        row = {
            "key": column_text(group.key),
            "due_at": group.due_at,
            "body": body_of(group),
            "last_notified_at": group.last_notified_at,
        }
        self._run.write(self._statements.save_group, [row])

    def due_groups(self, now: int) -> Sequence[GroupState]:
        return self._many(GROUP, self._statements.due_groups, {"now": now})

    def next_due(self) -> int:
        return int(self._run.value(self._statements.next_due) or 0)

    def enqueue(self, item: OutboxItem) -> None:
        self._run.write(self._statements.save_item, [outbox_row(item)])

    def supersede(self, order_key: str) -> Sequence[OutboxItem]:
        rows = self._run.column(self._statements.pending_triggers, {"order_key": order_key})
        changed = []
        for body in rows:
            item = ITEM.decode(body)
            item.state = OutboxState.SUPERSEDED
            changed.append(outbox_row(item))
        self._run.write(self._statements.save_item, changed)
        return [ITEM.decode(body) for body in rows]

    def save_outbox(self, item: OutboxItem) -> None:
        """As `StateStore.save_outbox`, inside this transaction."""
        stored = self._run.value(self._statements.item_state, {"id": item.id})
        row = outbox_row(item)
        if stored == OutboxState.SUPERSEDED.value and item.state is not OutboxState.DELIVERED:
            kept = ITEM.decode(row["body"])
            kept.state = OutboxState.SUPERSEDED
            row = outbox_row(kept)
        self._run.write(self._statements.save_item, [row])

    # ---------------------------------------------------------------- decisions
    def active_decisions(self, now: int) -> Sequence[Decision]:
        return self._many(DECISION, self._statements.active_decisions, {"now": now})

    def decisions_on(self, target: Target) -> Sequence[Decision]:
        key = {"kind": target.kind.value, "value": column_text(target.value)}
        return self._many(DECISION, self._statements.decisions_on, key)

    def save_decision(self, decision: Decision) -> None:
        row = {
            "id": decision.id,
            "target_kind": decision.target.kind.value,
            "target_value": column_text(decision.target.value),
            "host_id": decision.host_id,
            "owner": column_text(decision.owner),
            "state": decision.state.value,
            "starts_at": decision.starts_at,
            "expires_at": decision.expires_at,
            "body": body_of(decision),
        }
        self._run.write(self._statements.save_decision, [row])

    def save_refusals(self, refusals: Sequence[Refusal], at: int) -> None:
        rows = [
            {
                "at": at,
                "rule_id": refusal.rule_id,
                "target": column_text(refusal.target),
                "reason": refusal.reason.value,
                "finding_id": refusal.finding_id,
            }
            for refusal in refusals
        ]
        self._run.write(self._statements.insert_refusal, rows)

    # ---------------------------------------------------------------- retention
    def prune(self, kind: Kept, before: int, limit: int) -> int:
        return prune(self._open, kind, before, limit)

    def _one(self, decoder: msgspec.json.Decoder[T], statement: Any, parameters: Row) -> T | None:
        body = self._run.value(statement, parameters)
        return None if body is None else decoder.decode(body)

    def _many(self, decoder: msgspec.json.Decoder[T], statement: Any, parameters: Row) -> list[T]:
        return [decoder.decode(body) for body in self._run.column(statement, parameters)]
