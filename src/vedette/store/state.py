"""The relational state on SQLite or PostgreSQL: one writer, readers from any thread.
Counterpart: `model.protocols.StateStore`; `testing.state` keeps the same promises in memory."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Select, distinct, func, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from vedette.model.alerts import Alert, AlertState, Silence
from vedette.model.decisions import Decision, DecisionState, TargetKind
from vedette.model.errors import StateError
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.model.notifications import GroupState, OutboxItem, OutboxState
from vedette.model.reasons import RefusalReason
from vedette.store.connections import in_our_words, locate, make_engine, migrate, place_of, prepare_file
from vedette.store.queries import AlertFilter, DecisionFilter, DecisionStats, RefusalCount
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
from vedette.store.transaction import (
    ALERT,
    DECISION,
    FINDING,
    GROUP,
    ITEM,
    SILENCE,
    Statements,
    StateTransaction,
    chunks,
)

T = TypeVar("T")


class Mended(StrEnum):
    """What became of the state's file."""

    NOTHING = "nothing"
    WRITTEN_ANEW = "written-anew"
    REPLACED = "replaced"


class State:
    """`model.protocols.StateStore`, and what the faces read.

    Opening makes or migrates the schema. Reading sees what was committed when the call began.
    Every method raises StateError when the database refuses.
    """

    def __init__(self, where: Path | str) -> None:
        """`where`: the path of the SQLite file, or a URL (`postgresql+psycopg://...`)."""
        url = locate(where)
        self.place = place_of(url)
        if url.get_backend_name() == "sqlite":
            prepare_file(Path(url.database or ""))
        self._writer = make_engine(url, write=True)
        self._reader = make_engine(url, write=False)
        self._statements = Statements(url.get_backend_name())
        self._lock = threading.Lock()
        self._owner = 0
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None
        try:
            with self.writing() as connection:
                migrate(connection, self.place)
            self._file = self._identity()
        except BaseException:
            self.close()
            raise

    # ---------------------------------------------------------------- writing
    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The writer's connection in a transaction: for the stores beside this one that keep tables of their own."""
        me = threading.get_ident()
        if self._owner == me:
            raise RuntimeError("transactions do not nest")
        with self._lock, in_our_words(self.place):
            self._owner = me
            try:
                if self._connection is None:
                    self._connection = self._writer.connect()
                try:
                    with self._connection.begin():
                        yield self._connection
                except (SQLAlchemyError, sqlite3.Error):
                    # Whatever the database did to it, the next transaction starts on a fresh connection.
                    self._drop_connection()
                    raise
            finally:
                self._owner = 0

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()
            with suppress(SQLAlchemyError):
                connection.close()

    @contextmanager
    def transaction(self) -> Iterator[StateTransaction]:
        """Commit when the block ends, roll back when it raises; one at a time, they do not nest."""
        with self.writing() as connection:
            transaction = StateTransaction(connection, self._statements)
            try:
                yield transaction
            finally:
                transaction.end()

    def save_outbox(self, item: OutboxItem) -> None:
        """Update an item after an attempt; one superseded meanwhile stays so unless it was delivered after all."""
        with self.transaction() as transaction:
            transaction.save_outbox(item)

    def foreign_version(self) -> int:
        """A number that changes when somebody else (another process) has committed; cheap enough to ask often.

        PostgreSQL has no such number that costs nothing: there it counts the transactions of all.
        """
        with self._lock, in_our_words(self.place):
            if self._connection is None:
                self._connection = self._writer.connect()
            if self._writer.dialect.name == "sqlite":
                raw = self._connection.connection.driver_connection
                assert raw is not None
                return int(raw.execute("PRAGMA data_version").fetchone()[0])
            with self._connection.begin():
                return int(
                    self._connection.exec_driver_sql("SELECT pg_snapshot_xmin(pg_current_snapshot())").scalar_one()
                )

    def _identity(self) -> tuple[int, int] | None:
        """Which file is at our place: device and inode; None where there is none, or no file at all (PostgreSQL)."""
        if self._writer.dialect.name != "sqlite":
            return None
        try:
            found = Path(self.place).stat()
        except FileNotFoundError:
            return None
        except OSError:
            # A disk that fails says nothing of the file; writing to it will.
            return self._file
        return found.st_dev, found.st_ino

    def mend(self) -> Mended:
        """See that the state's file is where it was, and write it anew where somebody took it away.

        What we hold open is whole until it is closed. StateError where the disk refuses. Another file in its place may
        be somebody's restored copy: it is left alone, and nothing of ours must be written any more.
        """
        there = self._identity()
        if there == self._file:
            return Mended.NOTHING
        with self._lock, in_our_words(self.place):
            if self._connection is None:
                self._connection = self._writer.connect()
            raw = self._connection.connection.driver_connection
            assert raw is not None
            if there is not None:
                # The log beside it is still that of the file that was there.
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return Mended.REPLACED
            written = Path(f"{self.place}.mended")
            prepare_file(written)
            raw.execute("VACUUM INTO ?", (str(written),))
            self._drop_connection()
            self._reader.dispose()
            try:
                # A log that is left of the old file must not be played into the new one.
                for side in ("-wal", "-shm"):
                    Path(self.place + side).unlink(missing_ok=True)
                written.rename(self.place)
            except OSError as error:
                raise StateError(f"state in {self.place}: {error.strerror}") from None
        self._file = self._identity()
        return Mended.WRITTEN_ANEW

    def close(self) -> None:
        """Give back every connection; idempotent."""
        with self._lock:
            if self._connection is not None:
                with suppress(SQLAlchemyError):
                    self._connection.close()
                self._connection = None
            self._writer.dispose()
            self._reader.dispose()

    # ---------------------------------------------------------------- reading
    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A reader's connection, one frozen moment."""
        with in_our_words(self.place), self._reader.connect() as connection:
            yield connection

    def _many(
        self, decoder: msgspec.json.Decoder[T], statement: Select[Any], parameters: Mapping[str, Any] | None = None
    ) -> list[T]:
        with self.reading() as connection:
            return [decoder.decode(body) for body in connection.execute(statement, parameters or {}).scalars()]

    def cursors(self) -> Mapping[str, str]:
        """Source name -> what it resumes from."""
        with self.reading() as connection:
            return {row.source: row.cursor for row in connection.execute(select(CURSORS))}

    def correlation(self) -> Iterable[tuple[str, str, bytes]]:
        """Every stored (rule id, key text, state)."""
        with self.reading() as connection:
            return [(row.rule_id, row.key, row.state) for row in connection.execute(select(CORRELATION))]

    def pending_outbox(self, now: int, limit: int = 100) -> Sequence[OutboxItem]:
        """Items due by `now`, most urgent first (level, then age); per order_key only the first one."""
        return self._many(ITEM, self._statements.pending_outbox, {"now": now, "limit": limit})

    def finding(self, finding_id: str) -> Finding | None:
        """The finding of this id."""
        return next(iter(self.findings([finding_id])), None)

    def findings(self, finding_ids: Sequence[str]) -> list[Finding]:
        """Those of these ids that are stored, in the order asked for."""
        found: dict[str, Finding] = {}
        for run in chunks(finding_ids):
            found.update((f.id, f) for f in self._many(FINDING, self._statements.findings, {"ids": run}))
        return [found[finding_id] for finding_id in finding_ids if finding_id in found]

    def recent_findings(self, since: int = 0, limit: int = 100) -> list[Finding]:
        """Findings whose event time is at or after `since`, newest first."""
        order = (FINDINGS.c.time.desc(), FINDINGS.c.id)
        return self._many(
            FINDING, select(FINDINGS.c.body).where(FINDINGS.c.time >= since).order_by(*order).limit(limit)
        )

    def alert(self, alert_id: str) -> Alert | None:
        """The alert of this id."""
        return next(iter(self._many(ALERT, self._statements.alert, {"id": alert_id})), None)

    def alerts(
        self,
        chosen: AlertFilter = AlertFilter(),  # noqa: B008 (frozen)
        *,
        limit: int = 100,
        after: str = "",
        where: Callable[[Alert], bool] | None = None,
    ) -> list[Alert]:
        """At most `limit` alerts, newest opening first; `after`: id of the last one of the page before.

        where: a further test on each alert (silence matchers, for example).
        """
        statement = select(ALERTS.c.body).order_by(ALERTS.c.opened_at.desc(), ALERTS.c.id.desc())
        if chosen.states:
            statement = statement.where(ALERTS.c.state.in_(sorted(chosen.states)))
        if chosen.level > Level.INFORMATIONAL:
            statement = statement.where(ALERTS.c.level >= chosen.level.value)
        if chosen.rule_id:
            statement = statement.where(ALERTS.c.rule_id == chosen.rule_id)
        if chosen.host_id:
            statement = statement.where(ALERTS.c.host_id == chosen.host_id)
        if chosen.since:
            statement = statement.where(ALERTS.c.updated_at >= chosen.since)
        if after:
            last = select(ALERTS.c.opened_at, ALERTS.c.id).where(ALERTS.c.id == after)
            statement = statement.where(tuple_(ALERTS.c.opened_at, ALERTS.c.id) < last.scalar_subquery())
        if where is None:
            return self._many(ALERT, statement.limit(limit))
        kept: list[Alert] = []
        with self.reading() as connection:
            for body in connection.execute(statement).scalars():
                alert = ALERT.decode(body)
                if where(alert):
                    kept.append(alert)
                if len(kept) >= limit:
                    break
        return kept

    def alert_counts(self) -> dict[tuple[AlertState, Level], int]:
        """How many alerts stand where, by state and level."""
        statement = select(ALERTS.c.state, ALERTS.c.level, func.count()).group_by(ALERTS.c.state, ALERTS.c.level)
        with self.reading() as connection:
            return {(AlertState(state), Level(level)): n for state, level, n in connection.execute(statement)}

    def silences(self, now: int, *, ended: bool = False) -> list[Silence]:
        """Silences not ended by `now` (not yet begun ones too); with `ended` every one ever made."""
        if ended:
            return self._many(SILENCE, select(SILENCES.c.body).order_by(SILENCES.c.starts_at, SILENCES.c.id))
        return self._many(SILENCE, self._statements.silences, {"now": now})

    def groups(self) -> list[GroupState]:
        """Every notification group, by key."""
        return self._many(GROUP, select(ALERT_GROUPS.c.body).order_by(ALERT_GROUPS.c.key))

    def next_due(self) -> int:
        """When the earliest group must be looked at, microseconds; 0 = nothing planned."""
        with self.reading() as connection:
            return int(connection.execute(self._statements.next_due).scalar() or 0)

    def outbox(self, states: Iterable[OutboxState] = (), limit: int = 100) -> list[OutboxItem]:
        """Outbox items in these states (none named: all), newest first."""
        statement = select(OUTBOX.c.body).order_by(OUTBOX.c.created_at.desc(), OUTBOX.c.id.desc()).limit(limit)
        if named := sorted(states):
            statement = statement.where(OUTBOX.c.state.in_(named))
        return self._many(ITEM, statement)

    def outbox_counts(self) -> dict[OutboxState, int]:
        """How many outbox items stand where."""
        with self.reading() as connection:
            rows = connection.execute(select(OUTBOX.c.state, func.count()).group_by(OUTBOX.c.state))
            return {OutboxState(state): n for state, n in rows}

    def active_decisions(self, now: int) -> list[Decision]:
        """Decisions in force, oldest first."""
        return self._many(DECISION, self._statements.active_decisions, {"now": now})

    def decisions(
        self,
        chosen: DecisionFilter = DecisionFilter(),  # noqa: B008 (frozen)
        *,
        limit: int = 100,
        after: str = "",
    ) -> list[Decision]:
        """At most `limit` decisions, newest first; `after`: id of the last one of the page before."""
        statement = select(DECISIONS.c.body).order_by(DECISIONS.c.starts_at.desc(), DECISIONS.c.id.desc())
        if chosen.states:
            statement = statement.where(DECISIONS.c.state.in_(sorted(chosen.states)))
        if chosen.value:
            statement = statement.where(DECISIONS.c.target_value == chosen.value)
        if chosen.owner:
            statement = statement.where(DECISIONS.c.owner == chosen.owner)
        if chosen.since:
            statement = statement.where(DECISIONS.c.starts_at >= chosen.since)
        if after:
            last = select(DECISIONS.c.starts_at, DECISIONS.c.id).where(DECISIONS.c.id == after)
            statement = statement.where(tuple_(DECISIONS.c.starts_at, DECISIONS.c.id) < last.scalar_subquery())
        return self._many(DECISION, statement.limit(limit))

    def decision_stats(self, since: int, now: int) -> DecisionStats:
        """Decisions begun at or after `since`; `active` counts those in force at `now`."""
        begun = DECISIONS.c.starts_at >= since
        in_force = (DECISIONS.c.state == DecisionState.ACTIVE.value) & (DECISIONS.c.expires_at > now)
        unique = func.count(distinct(DECISIONS.c.target_value))
        stats = DecisionStats()
        with self.reading() as connection:
            stats.addresses = (
                connection.execute(
                    select(unique).where(begun, DECISIONS.c.target_kind == TargetKind.ADDRESS.value)
                ).scalar()
                or 0
            )
            stats.active = connection.execute(select(func.count()).where(begun, in_force)).scalar() or 0
            by_state = select(DECISIONS.c.state, func.count()).where(begun).group_by(DECISIONS.c.state)
            stats.by_state = {DecisionState(state): n for state, n in connection.execute(by_state)}
            by_owner = select(DECISIONS.c.owner, func.count(), unique).where(begun).group_by(DECISIONS.c.owner)
            stats.by_owner = {owner: (n, targets) for owner, n, targets in connection.execute(by_owner)}
        stats.total = sum(stats.by_state.values())
        return stats

    def refusal_counts(self, since: int = 0) -> list[RefusalCount]:
        """Refusals at or after `since`, most frequent first."""
        number = func.count().label("number")
        statement = (
            select(REFUSALS.c.rule_id, REFUSALS.c.reason, number)
            .where(REFUSALS.c.at >= since)
            .group_by(REFUSALS.c.rule_id, REFUSALS.c.reason)
            .order_by(number.desc(), REFUSALS.c.rule_id, REFUSALS.c.reason)
        )
        with self.reading() as connection:
            return [RefusalCount(rule, RefusalReason(reason), n) for rule, reason, n in connection.execute(statement)]
