"""Which files are live, what they hold and what will never come: one SQLite database, one transaction a change.
Counterpart: `lake` writes it, `reader` reads one frozen moment of it, also from other processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from vedette.model.errors import StateError
from vedette.model.ranges import Ranges
from vedette.model.shipping import Dropped
from vedette.store.connections import in_our_words, locate, make_engine, prepare_file
from vedette.store.lake.contents import Contents, encode
from vedette.store.lake.listing import FILE_NAME, VERSION, check_version
from vedette.store.lake.listing import ErasedRecords as ErasedRecords
from vedette.store.lake.listing import File as File
from vedette.store.lake.listing import StreamName as StreamName
from vedette.store.lake.listing import Tombstone as Tombstone
from vedette.store.lake.listing import all_dropped as all_dropped
from vedette.store.lake.listing import all_erased as all_erased
from vedette.store.lake.listing import all_tombstones as all_tombstones
from vedette.store.lake.listing import contents as contents
from vedette.store.lake.listing import live_files as live_files
from vedette.store.lake.listing import next_sequence as next_sequence
from vedette.store.lake.listing import ranges as ranges
from vedette.store.lake.listing import streams as streams

METADATA = MetaData()
_META = Table("meta", METADATA, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
_STREAMS = Table(
    "streams",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("host_id", Text, nullable=False),
    Column("stream", Text, nullable=False),
    UniqueConstraint("host_id", "stream"),
)
FILES = Table(
    "files",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("path", Text, nullable=False, unique=True),  # below the lake's folder; "" where no batch has a record
    Column("hour", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("batches", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("raw_bytes", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("time_min", BigInteger, nullable=False),
    Column("time_max", BigInteger, nullable=False),
    Column("tier", Integer, nullable=False),
    Column("replaced_at", BigInteger),
    Index("files_by_first", "first"),
)
_CONTENTS = Table(
    "contents", METADATA, Column("file_id", Integer, primary_key=True), Column("body", LargeBinary, nullable=False)
)
_HOLDINGS = Table(
    "holdings",
    METADATA,
    Column("file_id", Integer, primary_key=True),
    Column("stream_id", Integer, primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("raw_bytes", BigInteger, nullable=False),
    Column("oldest", BigInteger, nullable=False),  # earliest `ingested`
    Index("holdings_by_stream", "stream_id", "first"),
)
_RANGES = Table(
    "ranges",
    METADATA,
    Column("stream_id", Integer, primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
_DROPPED = Table(
    "dropped",
    METADATA,
    Column("stream_id", Integer, primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("last", BigInteger, primary_key=True),
    Column("records", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)
_TOMBSTONES = Table(
    "tombstones",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("stream_id", Integer, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("raw_bytes", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("tombstones_by_stream", "stream_id", "first"),
)
_ERASED = Table(
    "erased",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("stream_id", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("time_min", BigInteger, nullable=False),
    Column("time_max", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)


class Manifest:
    """The manifest of a lake's folder; `write`: make it where there is none, and be able to change it."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.path = folder / FILE_NAME
        if write:
            prepare_file(self.path)
        elif not self.path.exists():
            raise StateError(
                f"no lake in {folder}", hint="name the data folder of a running vedette; nothing was stored yet"
            )
        url = locate(self.path)
        self._writer = make_engine(url, write=True) if write else None
        self._reader = make_engine(url, write=False)
        self._gate = threading.Condition()
        self._inside = 0
        self._closed = False
        try:
            self._open(write)
        except BaseException:
            self.close()
            raise

    def _open(self, write: bool) -> None:
        if write:
            with self.writing() as connection:
                METADATA.create_all(connection)
                connection.execute(
                    upsert(_META).values(name="version", value=str(VERSION)).on_conflict_do_nothing()  #
                )
        with self.reading() as connection:
            check_version(connection, self.path)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction; StateError when the disk refuses, and then nothing of it was kept."""
        assert self._writer is not None, "opened for reading"
        with self._open_still(), in_our_words(str(self.path)), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One frozen moment."""
        with self._open_still(), in_our_words(str(self.path)), self._reader.begin() as connection:
            yield connection

    def settle(self) -> bool:
        """Have the log of changes beside the database taken in and cut; False where somebody who reads holds it."""
        assert self._writer is not None, "opened for reading"
        with self._open_still(), in_our_words(str(self.path)):
            connection = self._writer.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                found = cursor.fetchone()
                cursor.close()
            finally:
                connection.close()
        return found is not None and not found[0]

    @contextmanager
    def _open_still(self) -> Iterator[None]:
        with self._gate:
            if self._closed:
                raise StateError(f"the lake in {self.path.parent} is closed", hint="open it again")
            self._inside += 1
        try:
            yield
        finally:
            with self._gate:
                self._inside -= 1
                self._gate.notify_all()

    def close(self) -> None:
        """Let go of the database, when whoever is in it has left; whoever comes later gets a StateError."""
        with self._gate:
            self._closed = True
            self._gate.wait_for(lambda: not self._inside)
        for engine in (self._writer, self._reader):
            if engine is not None:
                engine.dispose()


def stream_id(connection: Connection, name: StreamName) -> int:
    """The id of a host's stream, a new one where it is not known yet."""
    connection.execute(upsert(_STREAMS).values(host_id=name[0], stream=name[1]).on_conflict_do_nothing())
    found = select(_STREAMS.c.id).where(_STREAMS.c.host_id == name[0], _STREAMS.c.stream == name[1])
    return int(connection.execute(found).scalar_one())


def listed(connection: Connection, path: str) -> bool:
    """Whether a file is spoken of."""
    return connection.execute(select(FILES.c.id).where(FILES.c.path == path)).scalar() is not None


def add_file(connection: Connection, file: Mapping[str, Any], held: Contents) -> int:
    """List a file that is on the disk; its id."""
    first, last = int(held.sequence[0]), int(held.sequence[-1])
    busy = held.records > 0
    values = {
        "first": first,
        "last": last,
        "batches": len(held),
        "records": int(held.records.sum()),
        "raw_bytes": int(held.raw_bytes.sum()),
        "time_min": int(held.time_min[busy].min()) if busy.any() else 0,
        "time_max": int(held.time_max[busy].max()) if busy.any() else 0,
    }
    made = connection.execute(insert(FILES).values(**values, **file))
    file_id = int(made.inserted_primary_key[0])  # type: ignore[index]
    connection.execute(insert(_CONTENTS).values(file_id=file_id, body=encode(held)))
    rows = []
    for stream in np.unique(held.stream):
        own = held.stream == stream
        rows.append(
            {
                "file_id": file_id,
                "stream_id": int(stream),
                "first": int(held.number[own].min()),
                "last": int(held.number[own].max()),
                "raw_bytes": int(held.raw_bytes[own].sum()),
                "oldest": int(held.ingested[own].min()),
            }
        )
    connection.execute(insert(_HOLDINGS), rows)
    following = max(last + 1, next_sequence(connection))
    connection.execute(
        upsert(_META)
        .values(name="next_sequence", value=str(following))
        .on_conflict_do_update(index_elements=["name"], set_={"value": str(following)})
    )
    return file_id


def replace_files(connection: Connection, ids: Sequence[int], at: int) -> None:
    """These are live no more; the files themselves go later, when nobody can be reading them.

    StateError where one of them is not live: then somebody else replaced it, and this must not be kept.
    """
    for file_id in ids:
        live = (FILES.c.id == file_id) & FILES.c.replaced_at.is_(None)
        if connection.execute(update(FILES).where(live).values(replaced_at=at)).rowcount != 1:
            raise StateError(
                f"lake: file {file_id} was replaced by another", hint="nothing was changed; it is tried again"
            )
        connection.execute(delete(_HOLDINGS).where(_HOLDINGS.c.file_id == file_id))


def replaced(connection: Connection, before: int) -> list[tuple[int, str]]:
    """Id and path of the files that were replaced up to `before`."""
    found = select(FILES.c.id, FILES.c.path).where(FILES.c.replaced_at <= before).order_by(FILES.c.id)
    return [(row.id, row.path) for row in connection.execute(found)]


def all_paths(connection: Connection) -> set[str]:
    """Of every file that is listed, live or replaced."""
    return {row.path for row in connection.execute(select(FILES.c.path))}


def forget_files(connection: Connection, ids: Sequence[int]) -> None:
    """Take files off the list that are off the disk."""
    for file_id in ids:
        connection.execute(delete(_CONTENTS).where(_CONTENTS.c.file_id == file_id))
        connection.execute(delete(FILES).where(FILES.c.id == file_id))


def holdings(connection: Connection) -> list[tuple[int, int, int, int]]:
    """(file, stream, raw bytes, earliest ingested) of live files, in ingest order."""
    columns = _HOLDINGS.c.file_id, _HOLDINGS.c.stream_id, _HOLDINGS.c.raw_bytes, _HOLDINGS.c.oldest
    found = select(*columns).join(FILES, FILES.c.id == _HOLDINGS.c.file_id).order_by(FILES.c.first)
    return [tuple(row) for row in connection.execute(found)]


def add_numbers(connection: Connection, stream: int, added: Ranges) -> None:
    """Join numbers to those that were stored before."""
    for first, last in added:
        # Touching ones become one row, so that a stream without gaps is one row for ever.
        touched = (_RANGES.c.stream_id == stream) & (_RANGES.c.first <= last + 1) & (_RANGES.c.last >= first - 1)
        bounds = connection.execute(select(func.min(_RANGES.c.first), func.max(_RANGES.c.last)).where(touched)).one()
        low = first if bounds[0] is None else min(first, bounds[0])
        high = last if bounds[1] is None else max(last, bounds[1])
        connection.execute(delete(_RANGES).where(touched))
        connection.execute(insert(_RANGES).values(stream_id=stream, first=low, last=high))


def add_dropped(connection: Connection, stream: int, dropped: Dropped) -> Dropped | None:
    """Record what is new of a known gap, and give that back: what is stored, or was said before, is none.

    An agent says a gap again in other bounds, and of what was under way that it is lost.
    """
    said = connection.execute(_said(stream, dropped.first, dropped.last)).all()
    stored = _stored_within(connection, stream, dropped.first, dropped.last)
    new = Ranges([(dropped.first, dropped.last)]).without(stored).without(Ranges((one.first, one.last) for one in said))
    bounds = list(new)
    if not bounds:
        return None
    records = dropped.records
    if records >= 0:
        here, of_stored = _records_of(connection, stream, dropped.first, dropped.last)
        inside = all(dropped.first <= one.first and one.last <= dropped.last and one.records >= 0 for one in said)
        known = inside and here == stored.count()
        records = max(records - of_stored - sum(one.records for one in said), 0) if known else -1
    made = replace(dropped, first=bounds[0][0], last=bounds[-1][1], records=records)
    values = {name: getattr(made, name) for name in ("first", "last", "records", "reason", "at")}
    connection.execute(insert(_DROPPED).values(stream_id=stream, **values))
    return made


def take_back(connection: Connection, stream: int, number: int, records: int) -> bool:
    """A batch is about to be stored that was said to be dropped: its gap has less; False where none speaks of it."""
    said = sorted(connection.execute(_said(stream, number, number)).all(), key=lambda one: one.last - one.first)
    # A gap whose bounds hold those of an earlier one has not its records: the innermost speaks of this number.
    for one in said[:1]:
        rows = (_DROPPED.c.stream_id == stream) & (_DROPPED.c.first == one.first) & (_DROPPED.c.last == one.last)
        stored = _stored_within(connection, stream, one.first, one.last)
        left = list(Ranges([(one.first, one.last)]).without(stored).without(Ranges([(number, number)])))
        connection.execute(delete(_DROPPED).where(rows))
        if left:
            values = {"first": left[0][0], "last": left[-1][1], "reason": one.reason, "at": one.at}
            less = max(one.records - records, 0) if one.records >= 0 else -1
            connection.execute(insert(_DROPPED).values(stream_id=stream, records=less, **values))
    return bool(said)


def _said(stream: int, first: int, last: int) -> Select[Any]:
    touched = (_DROPPED.c.stream_id == stream) & (_DROPPED.c.first <= last) & (_DROPPED.c.last >= first)
    return select(_DROPPED).where(touched)


def _stored_within(connection: Connection, stream: int, first: int, last: int) -> Ranges:
    touched = (_RANGES.c.stream_id == stream) & (_RANGES.c.first <= last) & (_RANGES.c.last >= first)
    rows = connection.execute(select(_RANGES.c.first, _RANGES.c.last).where(touched))
    return Ranges((row.first, row.last) for row in rows).within(first, last)


def _records_of(connection: Connection, stream: int, first: int, last: int) -> tuple[int, int]:
    """How many batches of these numbers are in live files, and their records."""
    batches = records = 0
    touched = (_HOLDINGS.c.stream_id == stream) & (_HOLDINGS.c.first <= last) & (_HOLDINGS.c.last >= first)
    for file_id in connection.execute(select(_HOLDINGS.c.file_id).where(touched)).scalars().all():
        held = contents(connection, file_id)
        if held is not None:
            chosen = (held.stream == stream) & (held.number >= first) & (held.number <= last)
            batches += int(chosen.sum())
            records += int(held.records[chosen].sum())
    return batches, records


def add_tombstones(connection: Connection, tombstones: Sequence[tuple[int, Tombstone]]) -> None:
    """Record what was let go on purpose, with the id of its stream."""
    columns = ("first", "last", "records", "raw_bytes", "reason", "at")
    rows = [
        {"stream_id": stream, **{name: getattr(stone, name) for name in columns}}  #
        for stream, stone in tombstones
    ]
    if rows:
        connection.execute(insert(_TOMBSTONES), rows)


def add_erased(connection: Connection, erased: Iterable[ErasedRecords]) -> None:
    """Record that single records went because somebody asked."""
    rows = [
        {
            "stream_id": one.stream_id,
            "number": one.number,
            "records": one.records,
            "time_min": one.earliest,
            "time_max": one.latest,
            "at": one.at,
        }
        for one in erased
    ]
    if rows:
        connection.execute(insert(_ERASED), rows)


def last_erased(connection: Connection) -> int:
    """Counts up with every erasure; 0 = there was none."""
    return int(connection.execute(select(func.max(_ERASED.c.id))).scalar() or 0)
