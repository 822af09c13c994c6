"""The ledger on disk: grows inside the lake's transaction, signs its head, proves any leaf or record.
Counterpart: `store.lake` appends to it; `export` and the faces read it; `verify` trusts none of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, and_, delete, func, select, update

from vedette.model.batch import Batch
from vedette.model.clock import Clock
from vedette.model.errors import StateError
from vedette.model.shipping import BatchKey, Dropped
from vedette.store.connections import in_our_words, locate, make_engine
from vedette.store.ledger import tables
from vedette.store.ledger.leaves import (
    Batches,
    BatchLeaf,
    Erasure,
    ErasureKind,
    GapLeaf,
    Part,
    Tombstone,
    parse_leaf,
)
from vedette.store.ledger.notes import Checkpoint, NoteError, Signer, VerifierKey, make_checkpoint
from vedette.store.ledger.records import Leaf, leaf_of
from vedette.store.ledger.redacted import Kept
from vedette.store.ledger.tables import CHECKPOINTS, KEPT, LEAVES, NODES, SPANS, STREAMS
from vedette.store.ledger.tree import (
    Node,
    consistency_spans,
    cover,
    grow,
    inclusion_spans,
    leaf_hash,
    read_root,
    read_spans,
)

# SQLite takes 32,766 values a statement.
CHUNK = 10_000
_LEVEL = 56


@dataclass(frozen=True, slots=True)
class Head:
    """How far the log goes, not signed yet."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf as it is stored. data: its bytes; batch: of a batch's leaf; seed: None once it was erased."""

    index: int
    data: bytes
    batch: BatchLeaf | None
    seed: bytes | None


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A leaf, and the proof that it stands in the log of this size."""

    entry: Entry
    size: int
    path: list[bytes]


class Ledger:
    """The log of one hub. What takes a connection runs in the caller's transaction; the rest opens its own.

    database: the lake's manifest. signer: the hub's key; None reads only. Safe from any thread.
    """

    def __init__(self, database: Path, signer: Signer | None, *, clock: Clock) -> None:
        self._database = database
        self._signer = signer
        self._clock = clock
        self._engines: dict[bool, Engine] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()

    # ---------------------------------------------------------------- inside the lake's transaction

    def leaf(self, key: BatchKey, batch: Batch) -> Leaf:
        """The leaf of a batch with a fresh seed; pure, from any thread."""
        return leaf_of(key, batch)

    def append(self, connection: Connection, leaves: Sequence[Leaf]) -> None:
        """Batches were taken in. sqlalchemy's IntegrityError where one of the keys stands in the log already."""
        if not leaves:
            return
        tables.ensure(connection)
        streams = self._streams(connection, {(leaf.key.host_id, leaf.key.stream) for leaf in leaves})
        first = self._grow(connection, [leaf.encode() for leaf in leaves])
        rows = [
            {
                "leaf": first + place,
                "stream": streams[leaf.key.host_id, leaf.key.stream],
                "number": leaf.key.number,
                "records": leaf.records,
                "read_at": leaf.read_at,
                "root": leaf.root,
                "seed": leaf.seed,
            }
            for place, leaf in enumerate(leaves)
        ]
        connection.execute(LEAVES.insert(), rows)

    def dropped(self, connection: Connection, dropped: Dropped) -> None:
        """It is known and said that these batches will never come."""
        tables.ensure(connection)
        what = Batches(dropped.host_id, dropped.stream, dropped.first, dropped.last)
        data = GapLeaf(what, dropped.records, dropped.reason, dropped.at).encode()
        self._append_body(connection, data, [what], erased=False)

    def erase(
        self, connection: Connection, what: Sequence[Batches], *, kind: ErasureKind, who: str, why: str
    ) -> Tombstone:
        """Forget the seeds of these batches and say so in the log; the caller deletes their records."""
        tables.ensure(connection)
        signer = self._signing()
        stone = Tombstone(kind, who, why, self._clock.now(), tuple(what))
        # What is overwritten must not be found in free pages of the file.
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
        streams = self._streams(connection, {(one.host_id, one.stream) for one in what})
        for one in what:
            of = and_(LEAVES.c.stream == streams[one.host_id, one.stream], LEAVES.c.number.between(one.first, one.last))
            connection.execute(update(LEAVES).where(of).values(seed=None))
            if tables.has_erasures(connection):
                gone = select(LEAVES.c.leaf).where(of)
                connection.execute(delete(KEPT).where(KEPT.c.leaf.in_(gone)))
        self._append_body(connection, stone.encode(signer), what, erased=True)
        return stone

    def erase_records(
        self,
        connection: Connection,
        what: Sequence[tuple[Part, Kept]],
        *,
        who: str,
        why: str,
        at: int,
    ) -> Erasure:
        """Forget the salts of single records and say so in the log; the caller deletes the records.

        what: batches that are in the log, each with all that is gone of it by now, and what is kept of its tree.
        """
        tables.ensure_erasures(connection)
        erasure = Erasure(who, why, at, tuple(part for part, _ in what))
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
        for part, kept in what:
            index = self.find(connection, part.key)
            if index is None:
                raise StateError(
                    f"batch {part.key.number} of {part.key.stream} is not in the ledger", hint="`vedette ledger verify`"
                )
            connection.execute(update(LEAVES).where(LEAVES.c.leaf == index).values(seed=None))
            connection.execute(delete(KEPT).where(KEPT.c.leaf == index))
            row = {"leaf": index, "salts": kept.salts, "hashes": kept.hashes, "seed": kept.seed}
            connection.execute(KEPT.insert().values(row))
        spans = [Batches(one.key.host_id, one.key.stream, one.key.number, one.key.number) for one in erasure.what]
        self._append_body(connection, erasure.encode(self._signing()), spans, erased=True)
        return erasure

    def kept(self, connection: Connection, index: int) -> Kept | None:
        """What is kept of the tree of a batch that lost some of its records."""
        if not tables.has_erasures(connection):
            return None
        found = connection.execute(select(KEPT).where(KEPT.c.leaf == index)).one_or_none()
        return None if found is None else Kept(found.salts, found.hashes, found.seed)

    def part(self, connection: Connection, key: BatchKey) -> Part | None:
        """What the log says last of a batch of which records were erased."""
        for index in reversed(self.spoken_of(connection, key)):
            (entry,) = self.entries(connection, index, index + 1)
            leaf = parse_leaf(entry.data)
            if isinstance(leaf, Erasure):
                return next(part for part in leaf.what if part.key == key)
        return None

    def _append_body(self, connection: Connection, data: bytes, what: Sequence[Batches], *, erased: bool) -> None:
        streams = self._streams(connection, {(one.host_id, one.stream) for one in what})
        index = self._grow(connection, [data])
        connection.execute(LEAVES.insert().values(leaf=index, body=data))
        rows = [
            {
                "leaf": index,
                "stream": streams[one.host_id, one.stream],
                "first": one.first,
                "last": one.last,
                "erased": int(erased),
            }
            for one in what
        ]
        if rows:
            connection.execute(SPANS.insert(), rows)

    def _grow(self, connection: Connection, leaves: Sequence[bytes]) -> int:
        """Store the nodes these leaves complete; the index of the first of them."""
        size = self.size(connection)
        frontier = cover(0, size)
        edge = list(zip(frontier, self._hashes(connection, frontier), strict=True))
        made = grow(edge, size, [leaf_hash(data) for data in leaves])
        rows = [{"id": _node_id(node), "hash": found} for node, found in made if node[0]]
        if rows:
            connection.execute(NODES.insert(), rows)
        return size

    def _streams(self, connection: Connection, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
        found = {}
        for host_id, stream in sorted(wanted):
            which = and_(STREAMS.c.host_id == host_id, STREAMS.c.stream == stream)
            ident = connection.execute(select(STREAMS.c.id).where(which)).scalar()
            if ident is None:
                made = connection.execute(STREAMS.insert().values(host_id=host_id, stream=stream))
                ident = made.inserted_primary_key[0]  # type: ignore[index]
            found[host_id, stream] = ident
        return found

    # ---------------------------------------------------------------- reading, on any connection

    def size(self, connection: Connection) -> int:
        """How many leaves there are."""
        last = connection.execute(select(func.max(LEAVES.c.leaf))).scalar()
        return 0 if last is None else int(last) + 1

    def entries(self, connection: Connection, start: int, end: int) -> Iterator[Entry]:
        """Leaves `start` to `end`, end not included; StateError at the first that is not there."""
        columns = select(LEAVES, STREAMS.c.host_id, STREAMS.c.stream.label("name"))
        joined = columns.join_from(LEAVES, STREAMS, LEAVES.c.stream == STREAMS.c.id, isouter=True)
        expected = start
        for begin in range(start, end, CHUNK):
            run = and_(LEAVES.c.leaf >= begin, LEAVES.c.leaf < min(begin + CHUNK, end))
            for row in connection.execute(joined.where(run).order_by(LEAVES.c.leaf)):
                if row.leaf != expected:
                    break
                expected += 1
                if row.body is not None:
                    yield Entry(row.leaf, row.body, None, None)
                else:
                    batch = BatchLeaf(row.host_id or "", row.name or "", row.number, row.records, row.read_at, row.root)
                    yield Entry(row.leaf, batch.encode(), batch, row.seed)
            if expected != min(begin + CHUNK, end):
                raise StateError(
                    f"leaf {expected} of the ledger is not in the database",
                    hint="somebody removed it: compare with a checkpoint kept elsewhere, and with a backup",
                )

    def find(self, connection: Connection, key: BatchKey) -> int | None:
        """Where the batch stands in the log."""
        which = and_(STREAMS.c.host_id == key.host_id, STREAMS.c.stream == key.stream, LEAVES.c.number == key.number)
        joined = select(LEAVES.c.leaf).join_from(STREAMS, LEAVES, LEAVES.c.stream == STREAMS.c.id).where(which)
        found = connection.execute(joined).scalar()
        return None if found is None else int(found)

    def in_order(self, connection: Connection, size: int) -> Callable[[BatchKey], Entry | None]:
        """Gives the leaf of a batch among the first `size`; quick for whoever asks in the log's own order."""
        ahead = self.entries(connection, 0, size)

        def leaf_of_batch(key: BatchKey) -> Entry | None:
            nonlocal ahead
            for entry in ahead:
                if entry.batch is None or entry.seed is None:
                    continue  # of no batch, or of one that is gone
                if entry.batch.key == key:
                    return entry
                break
            index = self.find(connection, key)
            if index is None or index >= size:
                return None
            ahead = self.entries(connection, index, size)
            return next(ahead)

        return leaf_of_batch

    def order(self, connection: Connection, index: int) -> int:
        """The how-manieth batch the leaf is of, from 1: the lake numbers what it takes in the same way."""
        others = select(func.count(SPANS.c.leaf.distinct())).where(SPANS.c.leaf < index)
        return index + 1 - int(connection.execute(others).scalar_one())

    def keys(self, streams: Sequence[str]) -> set[BatchKey]:
        """Every batch of these streams, of any host."""
        joined = select(STREAMS.c.host_id, STREAMS.c.stream, LEAVES.c.number)
        joined = joined.join_from(STREAMS, LEAVES, LEAVES.c.stream == STREAMS.c.id)
        with self.reading() as connection:
            return {BatchKey(*row) for row in connection.execute(joined.where(STREAMS.c.stream.in_(streams)))}

    def spoken_of(self, connection: Connection, key: BatchKey) -> list[int]:
        """The leaves of gaps and tombstones that speak of this batch."""
        of = and_(STREAMS.c.host_id == key.host_id, STREAMS.c.stream == key.stream)
        which = and_(of, SPANS.c.first <= key.number, SPANS.c.last >= key.number)
        joined = select(SPANS.c.leaf).join_from(STREAMS, SPANS, SPANS.c.stream == STREAMS.c.id).where(which)
        return [int(leaf) for leaf in connection.execute(joined.order_by(SPANS.c.leaf)).scalars()]

    def root(self, connection: Connection, size: int) -> bytes:
        """The root of the first `size` leaves."""
        return read_root(size, lambda nodes: self._hashes(connection, nodes))

    def path(self, connection: Connection, index: int, size: int) -> list[bytes]:
        """The proof that leaf `index` stands in the log of `size`."""
        return read_spans(inclusion_spans(index, size), lambda nodes: self._hashes(connection, nodes))

    def consistency_path(self, connection: Connection, old: int, new: int) -> list[bytes]:
        """The proof that the log of `new` goes on from its first `old` leaves."""
        return read_spans(consistency_spans(old, new), lambda nodes: self._hashes(connection, nodes))

    def _hashes(self, connection: Connection, nodes: Sequence[Node]) -> list[bytes]:
        ids = [_node_id(node) for node in nodes if node[0]]
        found: dict[int, bytes] = {}
        if ids:
            for row in connection.execute(select(NODES.c.id, NODES.c.hash).where(NODES.c.id.in_(ids))):
                found[row.id] = row.hash
        hashes = []
        for level, index in nodes:
            if level == 0:
                (entry,) = self.entries(connection, index, index + 1)
                hashes.append(leaf_hash(entry.data))
            elif (one := found.get(_node_id((level, index)))) is not None:
                hashes.append(one)
            else:
                raise StateError(
                    f"node {level}:{index} of the ledger is not in the database",
                    hint="somebody removed it: compare with a checkpoint kept elsewhere, and with a backup",
                )
        return hashes

    # ---------------------------------------------------------------- reading what is committed

    def head(self) -> Head:
        """The head as it is stored now."""
        with self.reading() as connection:
            size = self.size(connection)
            return Head(size, self.root(connection, size))

    def checkpoint(self) -> Checkpoint:
        """The head, signed and kept; the one that is there already where nothing came since.

        Only what is committed is signed: a log that forgot what it signed would be caught as one with two histories.
        """
        with self.reading() as connection:
            size = self.size(connection)
            root = self.root(connection, size)
            kept = connection.execute(select(CHECKPOINTS.c.note).where(CHECKPOINTS.c.size == size)).scalar()
        if kept is not None:
            found = Checkpoint.parse(kept)
            if found.root == root and found.origin == self._signing().verifier.name:
                return found
            raise StateError(
                f"the ledger's {size} leaves are not what was signed of them",
                hint="the database was changed: restore it, and see what was done with it by `vedette ledger verify`",
            )
        made = make_checkpoint(self._signing(), size, root)
        with self._writing() as connection:
            row = {"size": size, "at": self._clock.now(), "note": str(made)}
            connection.execute(CHECKPOINTS.insert().prefix_with("OR IGNORE"), row)
        return made

    def checkpoints(self) -> list[Checkpoint]:
        """Every checkpoint that is kept, oldest first."""
        with self.reading() as connection:
            notes = connection.execute(select(CHECKPOINTS.c.note).order_by(CHECKPOINTS.c.size)).scalars().all()
        return [Checkpoint.parse(note) for note in notes]

    def cosigned(self, size: int, line: str, key: VerifierKey) -> Checkpoint:
        """Keep a witness's cosignature; NoteError where it is not of this key or not of our checkpoint."""
        with self._writing() as connection:
            which = CHECKPOINTS.c.size == size
            kept = connection.execute(select(CHECKPOINTS.c.note).where(which)).scalar()
            if kept is None:
                raise NoteError(f"no checkpoint of {size} leaves was signed here")
            note = Checkpoint.parse(kept).note
            if note.with_line(line).cosigned_at(key) is None:
                raise NoteError(f"no cosignature of {key.name} over the checkpoint of {size} leaves")
            written = str(note.with_line(line))
            connection.execute(update(CHECKPOINTS).where(which).values(note=written))
        return Checkpoint.parse(written)

    def inclusion(self, key: BatchKey, size: int | None = None) -> Inclusion | None:
        """The batch's leaf with its proof in the log of `size` (default: the whole); None where it is not in it."""
        with self.reading() as connection:
            index = self.find(connection, key)
            whole = self.size(connection) if size is None else size
            if index is None or index >= whole:
                return None
            (entry,) = self.entries(connection, index, index + 1)
            return Inclusion(entry, whole, self.path(connection, index, whole))

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the log of `new` leaves goes on from the log of `old`."""
        with self.reading() as connection:
            return self.consistency_path(connection, old, new)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A frozen moment of what is committed."""
        with in_our_words(str(self._database)), self._engine(write=False).connect() as connection:
            if not tables.exist(connection):
                raise self._none()
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with in_our_words(str(self._database)), self._engine(write=True).begin() as connection:
            yield connection

    def _engine(self, *, write: bool) -> Engine:
        with self._lock:
            if write not in self._engines:
                if not self._database.exists():
                    raise self._none()
                self._engines[write] = make_engine(locate(self._database), write=write)
            return self._engines[write]

    def _none(self) -> StateError:
        return StateError(f"no ledger in {self._database}", hint="it begins with the first record that is stored")

    def _signing(self) -> Signer:
        if self._signer is None:
            raise StateError("the ledger was opened without its key", hint="run this on the hub, as its user")
        return self._signer


def _node_id(node: Node) -> int:
    return node[0] << _LEVEL | node[1]
