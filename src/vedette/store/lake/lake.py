"""The lake's one writer: takes batches once a key, puts them on the disk together, and says which are safe.
Counterpart: `reader` gives them back; who put them confirms to the agent what `flush` returned."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection

from vedette.model.batch import Batch
from vedette.model.clock import HOUR, Clock
from vedette.model.errors import StateError
from vedette.model.protocols import Counter
from vedette.model.ranges import Ranges
from vedette.model.shipping import BatchKey, Dropped, Headers
from vedette.store.lake import compaction, files, retention
from vedette.store.lake import manifest as m
from vedette.store.lake.alone import alone
from vedette.store.lake.columns import Rows, contents_of, rows_of, table_of
from vedette.store.lake.reader import Reader
from vedette.store.lake.rewriting import Stop
from vedette.store.lake.settings import StreamRetention

FLUSH_LEVEL = 1


class Ledger(Protocol):
    """What proves the lake: leaves are made while putting, and appended in the lake's own transaction."""

    def leaf(self, key: BatchKey, batch: Batch) -> Any:
        """The leaf of a batch; pure, from any thread."""
        ...

    def append(self, connection: Connection, leaves: Sequence[Any]) -> None:
        """Append in this order; what the transaction does not keep was never appended."""
        ...

    def dropped(self, connection: Connection, dropped: Dropped) -> None:
        """Append that these batches will never come."""
        ...


@dataclass(slots=True)
class _Doubt:
    """A write whose end is not known. first: its sequence number; batches: the first of those that wait; path: its
    file, "" where it has none; back: of how many of them it had been said that they were dropped."""

    first: int
    batches: int
    path: str
    back: int = 0


class Lake(Reader):
    """A lake that is written. One in a folder at a time (StateError); `put` from any thread, `flush` from one."""

    _manifest: m.Manifest

    def __init__(self, folder: Path, *, clock: Clock, counter: Counter, ledger: Ledger | None = None) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_file)
            raise StateError(
                f"lake in {folder} is being written by another program", hint="end it, or name another folder"
            ) from error
        try:
            super().__init__(folder, m.Manifest(folder, write=True))
        except BaseException:
            os.close(self._lock_file)
            raise
        self._clock, self._counter, self._ledger = clock, counter, ledger
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._rewriting = threading.Lock()
        self._closing = threading.Event()
        self._pending: list[tuple[Rows, Any]] = []
        self._doubt: _Doubt | None = None
        self._keys: set[BatchKey] = set()
        self._waiting = 0
        try:
            with self._manifest.reading() as connection:
                names = m.streams(connection)
                self._stored = {names[stream]: found for stream, found in m.ranges(connection).items()}
                self._known = {name: found.copy() for name, found in self._stored.items()}
                for stream, dropped in m.all_dropped(connection):
                    self._known.setdefault(names[stream], Ranges()).add(dropped.first, dropped.last)
            orphans = self._sweep()
        except BaseException:
            # A lock that is still held would be in the way of the next try in this process.
            self.close()
            raise
        if orphans:
            self._counter.add("lake_orphans_swept", n=orphans)

    def _sweep(self) -> int:
        with alone(self.folder) as ours:
            if not ours:
                return 0  # what another program is writing just now is listed nowhere yet
            # Listed as of now: what it finished before we came must not be taken for left over.
            with self._manifest.reading() as connection:
                listed = m.all_paths(connection)
            return files.sweep(self.folder, listed)

    @property
    def waiting(self) -> int:
        """About how many bytes wait for `flush`: whoever puts should hold back when it grows."""
        return self._waiting

    def put(self, key: BatchKey, batch: Batch, headers: Headers) -> bool:
        """Take a batch into memory; False = its key was put before, and this one is left out and counted.

        Safe is what `flush` returned or `stored` names, a repeat as well. ValueError: columns do not fit the batch.
        """
        name = (key.host_id, key.stream)
        with self._lock:
            repeat = key in self._keys or key.number in self._stored.get(name, ())
            if not repeat:
                self._keys.add(key)
        if repeat:
            self._counter.add("lake_repeats")
            return False
        try:
            rows = rows_of(key, batch, headers)
            leaf = None if self._ledger is None else self._ledger.leaf(key, batch)
        except BaseException:
            with self._lock:
                self._keys.discard(key)
            raise
        with self._lock:
            self._pending.append((rows, leaf))
            self._waiting += rows.weight
        return True

    def flush(self) -> Sequence[BatchKey]:
        """Put what waits on the disk; the keys that are safe now, not always all that waited.

        StateError or OSError when the disk refuses: then all of it waits on, and none of it is stored twice later.
        """
        with self._writing:
            if safe := self._seen_after_all():
                return safe
            with self._lock:
                taken = list(self._pending)
            if not taken:
                return []
            try:
                back = self._store([rows for rows, _ in taken], [leaf for _, leaf in taken])
            except BaseException:
                with suppress(StateError, OSError):
                    if safe := self._seen_after_all():
                        return safe
                raise
            return self._safe(len(taken), back)

    def _seen_after_all(self) -> list[BatchKey]:
        """The keys of a write that failed and was kept all the same; none where it was not, or none failed.

        StateError or OSError where that cannot be seen: until it can, nothing else is written.
        """
        doubt = self._doubt
        if doubt is None:
            return []
        with self._manifest.reading() as connection:
            kept = m.next_sequence(connection) != doubt.first
        if kept:
            self._doubt = None
            return self._safe(doubt.batches, doubt.back)
        # Only what nobody speaks of may go.
        if doubt.path:
            (self.folder / doubt.path).unlink(missing_ok=True)
        self._doubt = None
        return []

    def _safe(self, batches: int, back: int) -> list[BatchKey]:
        """The first so many of what waited are stored."""
        with self._lock:
            taken = self._pending[:batches]
            del self._pending[:batches]
            keys = [rows.key for rows, _ in taken]
            for key in keys:
                for known in (self._stored, self._known):
                    known.setdefault((key.host_id, key.stream), Ranges()).add(key.number)
                self._keys.discard(key)
            self._waiting -= sum(rows.weight for rows, _ in taken)
        if back:
            self._counter.add("lake_dropped_came", n=back)
        return keys

    def _store(self, rows: Sequence[Rows], leaves: Sequence[Any]) -> int:
        """Write them all; of how many it had been said that they were dropped."""
        now = self._clock.now()
        hour = now // HOUR
        with self._manifest.reading() as connection:
            first = m.next_sequence(connection)
        held = contents_of(rows, [0] * len(rows), first, now)
        held.groups = files.groups_of(held.records, held.raw_bytes)
        path, size = files.path_of(hour, first, first + len(rows) - 1, "0"), 0
        if held.records.any():
            tables = files.slices(table_of(rows, now, first), held.groups)
            size = files.write(self.folder, path, tables, level=FLUSH_LEVEL)
        # A commit that fails may have been kept after all.
        doubt = self._doubt = _Doubt(first, len(rows), path if size else "")
        with self._manifest.writing() as connection:
            ids: dict[m.StreamName, int] = {}
            added: dict[int, Ranges] = {}
            for place, one in enumerate(rows):
                name = (one.key.host_id, one.key.stream)
                stream = ids.get(name) or ids.setdefault(name, m.stream_id(connection, name))
                held.stream[place] = stream
                added.setdefault(stream, Ranges()).add(one.key.number)
            m.add_file(
                connection,
                {"path": path if size else f"empty/{first}", "hour": hour, "bytes": size, "tier": 0},
                held,
            )
            for place in self._said_to_be_dropped(rows):
                # What was under way when its agent let it go: it came after all. One by one, before any of them counts
                # as stored, or the gap would end before all of their records were taken from it.
                found = int(held.stream[place]), rows[place].key.number, len(rows[place])
                doubt.back += m.take_back(connection, *found)
            for stream, new in added.items():
                m.add_numbers(connection, stream, new)
            if self._ledger is not None:
                self._ledger.append(connection, leaves)
        self._doubt = None
        return doubt.back

    def _said_to_be_dropped(self, rows: Sequence[Rows]) -> list[int]:
        with self._lock:
            known = [self._known.get((one.key.host_id, one.key.stream), ()) for one in rows]
            return [place for place, one in enumerate(rows) if one.key.number in known[place]]

    def drop(self, dropped: Dropped) -> None:
        """Record a gap; once, however often and in what bounds it is said, and nothing of it that is stored."""
        name = (dropped.host_id, dropped.stream)
        with self._writing, self._manifest.writing() as connection:
            new = m.add_dropped(connection, m.stream_id(connection, name), dropped)
            if new is not None and self._ledger is not None:
                self._ledger.dropped(connection, new)
        if new is not None:
            with self._lock:
                self._known.setdefault(name, Ranges()).add(new.first, new.last)
            self._counter.add("lake_dropped_batches", new.reason, new.last - new.first + 1)

    def compact(self, stop: Stop = lambda: False) -> compaction.Compacted:
        """Make few files of many, beside everything else; from a thread with time. `stop`: asked whether to end early.

        StateError or OSError: what was not done yet waits for the next time.
        """
        with self._rewriting, alone(self.folder) as ours:
            if not ours:
                return compaction.Compacted()  # somebody erases; the next time
            return compaction.compact(self.folder, self._manifest, self._clock.now(), stop=self._or_closing(stop))

    def retain(
        self,
        policies: Sequence[StreamRetention],
        erased: retention.Erased | None = None,
        stop: Stop = lambda: False,
    ) -> Sequence[m.Tombstone]:
        """Let go of what the policies do not keep; what went, of which `erased` was told in the same transaction.

        From a thread with time. StateError or OSError: what was not done yet waits for the next time.
        """
        with self._rewriting, alone(self.folder) as ours:
            if not ours:
                return []
            now, ended = self._clock.now(), self._or_closing(stop)
            gone = retention.retain(self.folder, self._manifest, policies, now, erased=erased, stop=ended)
        for stone in gone:
            self._counter.add("lake_let_go_batches", stone.reason, stone.last - stone.first + 1)
        return gone

    def last_erased(self) -> int:
        """Counts up with every erasure of single records; 0 = there was none."""
        with self._manifest.reading() as connection:
            return m.last_erased(connection)

    def stored(self) -> Mapping[m.StreamName, Ranges]:
        """The numbers that were ever stored, by host id and stream."""
        with self._lock:
            return {name: found.copy() for name, found in self._stored.items()}

    def streams_of(self, host_id: str) -> dict[str, int]:
        """The streams of a host, and the last number of each that is stored or known to be dropped."""
        with self._lock:
            return {stream: found.last for (owner, stream), found in self._known.items() if owner == host_id}

    def stored_through(self, host_id: str, stream: str) -> int:
        """The last number up to which every batch is stored or known to be dropped; 0 where the first is missing."""
        with self._lock:
            found = self._known.get((host_id, stream))
            return 0 if found is None else found.through()

    def stored_beyond(self, host_id: str, stream: str, through: int, most: int) -> tuple[tuple[int, int], ...]:
        """The first `most` ranges of numbers that are stored, or known to be dropped, behind `through`."""
        with self._lock:
            found = self._known.get((host_id, stream))
            return () if found is None else found.behind(through, most)

    def has(self, key: BatchKey) -> bool:
        """Whether this batch is stored; one that was said to be dropped and comes after all is not."""
        with self._lock:
            return key.number in self._stored.get((key.host_id, key.stream), ())

    def _or_closing(self, stop: Stop) -> Stop:
        return lambda: self._closing.is_set() or stop()

    def close(self) -> None:
        """Let go of everything; what was not flushed is gone, and nobody was told it was safe.

        Whoever is writing or reading ends first, since another program may write as soon as this is over; whoever
        comes later gets a StateError.
        """
        self._closing.set()
        with self._rewriting, self._writing:
            self._manifest.close()
        held, self._lock_file = self._lock_file, -1
        if held >= 0:
            os.close(held)
