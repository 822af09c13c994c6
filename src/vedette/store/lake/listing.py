"""Reads what the manifest lists by plain SQL: what a search of one moment needs, without what writing takes to import.
Counterpart: `manifest` makes and changes the tables; `reader` and `spans` ask here, over either's connection."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vedette.model.errors import StateError
from vedette.model.ranges import Ranges
from vedette.model.shipping import Dropped
from vedette.store.lake.contents import Contents, decode
from vedette.store.sqlite_words import BUSY_TIMEOUT_MS, in_our_words

VERSION = 1
FILE_NAME = "manifest.db"

StreamName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class File:
    """A live file. first, last: sequence numbers of its batches; tier: how often it was compacted."""

    id: int
    path: str
    hour: int
    first: int
    last: int
    batches: int
    records: int
    raw_bytes: int
    bytes: int
    time_min: int
    time_max: int
    tier: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Batches first to last of a stream were stored and let go, or erased, on purpose. reason: a `Gone` value."""

    host_id: str
    stream: str
    first: int
    last: int
    records: int
    raw_bytes: int
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class ErasedRecords:
    """So many records of one batch were erased because somebody asked. earliest, latest: `@timestamp` in the batch as
    it was before; at: when they went; microseconds."""

    host_id: str
    stream: str
    number: int
    records: int
    earliest: int
    latest: int
    at: int
    stream_id: int = 0


class Rows(Protocol):
    """What a statement gives: tuples."""

    def fetchone(self) -> Any: ...

    def fetchall(self) -> Any: ...


class Asked(Protocol):
    """A connection inside a transaction: SQLAlchemy's, or one of `Listing`."""

    def exec_driver_sql(self, statement: str, parameters: tuple[Any, ...] = ...) -> Rows:
        """Run a statement of the driver's own SQL."""
        ...


class Listed(Protocol):
    """What lists files: a manifest, or a `Listing` of one."""

    def reading(self) -> AbstractContextManager[Asked]:
        """One frozen moment."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class _Plain:
    """A connection of the driver, with the one method that is asked of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def exec_driver_sql(self, statement: str, parameters: tuple[Any, ...] = ()) -> Rows:
        return self._connection.execute(statement, parameters)


class Listing:
    """The manifest of a lake's folder, read alone. Safe from any thread. StateError: as `Manifest`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        if not self.path.exists():
            raise StateError(
                f"no lake in {folder}", hint="name the data folder of a running vedette; nothing was stored yet"
            )
        self._gate = threading.Condition()
        self._kept: list[sqlite3.Connection] = []
        self._inside = 0
        self._closed = False
        try:
            with self.reading() as connection:
                check_version(connection, self.path)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Asked]:
        """One frozen moment."""
        with self._gate:
            if self._closed:
                raise StateError(f"the lake in {self.path.parent} is closed", hint="open it again")
            self._inside += 1
            kept = self._kept.pop() if self._kept else None
        connection = kept
        try:
            with in_our_words(str(self.path)):
                if connection is None:
                    connection = self._connected()
                connection.execute("BEGIN")
                try:
                    yield _Plain(connection)
                finally:
                    connection.execute("ROLLBACK")
        finally:
            with self._gate:
                self._inside -= 1
                if connection is not None:
                    self._kept.append(connection)
                self._gate.notify_all()

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            str(self.path), timeout=BUSY_TIMEOUT_MS / 1000, check_same_thread=False, isolation_level=None
        )
        for pragma in ("journal_mode = WAL", "trusted_schema = OFF", "query_only = ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def close(self) -> None:
        """Let go of the database, when whoever is in it has left; whoever comes later gets a StateError."""
        with self._gate:
            self._closed = True
            self._gate.wait_for(lambda: not self._inside)
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()


def check_version(connection: Asked, place: Path) -> None:
    """StateError where a newer version made the tables."""
    found = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'version'").fetchone()
    stored = None if found is None else found[0]
    if stored != str(VERSION):
        raise StateError(
            f"lake in {place} has version {stored}, this version knows none newer than {VERSION}",
            hint="run the version that wrote it or a newer one; nothing was changed",
        )


def streams(connection: Asked) -> dict[int, StreamName]:
    """Every known host and stream by its id."""
    rows = connection.exec_driver_sql("SELECT id, host_id, stream FROM streams").fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


_FILE = f"SELECT {', '.join(File.__dataclass_fields__)} FROM files WHERE replaced_at IS NULL"


def live_files(connection: Asked, after: int = 0, *, through: int | None = None, most: int | None = None) -> list[File]:
    """Those with a batch after sequence number `after` and none behind `through` alone, in ingest order.

    What was replaced lies on the disk for those who still read it, and is not among them.
    """
    bounds = (after, 2**62 if through is None else through, -1 if most is None else most)
    rows = connection.exec_driver_sql(f"{_FILE} AND last > ? AND first <= ? ORDER BY first LIMIT ?", bounds)
    return [File(*row) for row in rows.fetchall()]


def next_sequence(connection: Asked) -> int:
    """One more than any sequence number that was ever given."""
    found = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'next_sequence'").fetchone()
    return 1 if found is None else int(found[0])


def contents(connection: Asked, file_id: int) -> Contents | None:
    """What a file holds, also a replaced one that is not deleted yet; None where it is gone."""
    found = connection.exec_driver_sql("SELECT body FROM contents WHERE file_id = ?", (file_id,)).fetchone()
    return None if found is None else decode(found[0])


def files_with(connection: Asked, stream: int, number: int) -> list[int]:
    """Ids of the live files that may hold this batch of a stream."""
    wanted = "SELECT file_id FROM holdings WHERE stream_id = ? AND first <= ? AND last >= ?"
    return [row[0] for row in connection.exec_driver_sql(wanted, (stream, number, number)).fetchall()]


def ranges(connection: Asked) -> dict[int, Ranges]:
    """Every number that was ever stored, by stream."""
    found: dict[int, Ranges] = {}
    rows = connection.exec_driver_sql("SELECT stream_id, first, last FROM ranges ORDER BY stream_id, first")
    for stream, first, last in rows.fetchall():
        found.setdefault(stream, Ranges()).add(first, last)
    return found


def all_dropped(connection: Asked) -> list[tuple[int, Dropped]]:
    """Every known gap with the id of its stream, oldest first."""
    names = streams(connection)
    wanted = "SELECT stream_id, first, last, records, reason, at FROM dropped ORDER BY at, stream_id, first"
    rows = connection.exec_driver_sql(wanted).fetchall()
    return [(stream, Dropped(*names[stream], *told)) for stream, *told in rows]


def all_tombstones(connection: Asked) -> list[Tombstone]:
    """Everything that was let go on purpose, in that order."""
    names = streams(connection)
    wanted = "SELECT stream_id, first, last, records, raw_bytes, reason, at FROM tombstones ORDER BY id"
    rows = connection.exec_driver_sql(wanted).fetchall()
    return [Tombstone(*names[stream], *told) for stream, *told in rows]


def all_erased(connection: Asked, since: int, until: int) -> list[ErasedRecords]:
    """What was erased of batches with a record in since <= `@timestamp` < until."""
    # A lake that was last written by a version without erasures has no such table.
    if connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'erased'").fetchone() is None:
        return []
    names = streams(connection)
    wanted = (
        "SELECT stream_id, number, records, time_min, time_max, at FROM erased"
        " WHERE time_max >= ? AND time_min < ? ORDER BY id"
    )
    rows = connection.exec_driver_sql(wanted, (since, until)).fetchall()
    return [
        ErasedRecords(*names[stream], number, records, earliest, latest, at, stream)
        for stream, number, records, earliest, latest, at in rows
    ]
