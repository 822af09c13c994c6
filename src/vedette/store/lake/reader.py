"""Reads a lake while it is written, from this or another process: in ingest order, or by time and words.
Counterpart: `lake` writes it; search, replay and rules of the fleet read it through here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vedette.model.batch import Batch, Bool, Int64, RecordFormat
from vedette.model.clock import BEGINNING
from vedette.model.ranges import Ranges
from vedette.model.shipping import BatchKey, Dropped
from vedette.store.lake import listing as m
from vedette.store.lake import words
from vedette.store.lake.arranged import read_group
from vedette.store.lake.columns import HEADER_COLUMNS, lengths, needed, numbers, rebuilt
from vedette.store.lake.contents import Contents
from vedette.store.lake.files import side_of

END = 2**62


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that occur in a record; not `cased`: letters of ASCII in either case.

    whole: no letter or digit of ASCII stands right before or behind it. It is not looked at record by record; it lets
    row groups be skipped. format: only in records of this format is it written so; None = in any.
    """

    text: bytes
    cased: bool = False
    whole: bool = False
    format: RecordFormat | None = None


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Scan:
    """What to look for: since <= `@timestamp` < until; of these hosts (ids) and streams, where any are named.

    literals: of every group at least one must occur. A stream covers its own `#security` one. stop: asked before each
    file and row group, also where none of them holds anything, whether to end there.
    """

    since: int = BEGINNING
    until: int = END
    hosts: frozenset[str] = frozenset()
    streams: frozenset[str] = frozenset()
    literals: Sequence[Sequence[Literal]] = ()
    newest_first: bool = False
    stop: Callable[[], bool] = field(default=_never, compare=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch as it was put, and where it stands in ingest order."""

    sequence: int
    key: BatchKey
    batch: Batch


@dataclass(frozen=True, slots=True)
class Part:
    """The candidates of one batch. rows: int64, their indices in the stored batch; time: int64, `@timestamp`.

    newest_left: no later part has a record later than this, so that a walk from the newest may end early.
    """

    key: BatchKey
    sequence: int
    batch: Batch
    rows: Int64
    time: Int64
    newest_left: int


@dataclass(slots=True)
class _Unit:
    """A row group with batches that may hold something; left: no later unit has a record later than this.

    literals: the scan's, without the alternatives that cannot be in this row group.
    """

    path: str
    held: Contents
    group: int
    places: Int64
    newest: int
    literals: Sequence[Sequence[Literal]]
    left: int = END


@dataclass(frozen=True, slots=True)
class _Asked:
    """A scan, the streams it is of, and what filters must hold of each alternative of its literals."""

    scan: Scan
    names: Mapping[int, m.StreamName]
    streams: Int64
    keys: Sequence[Sequence[words.UInt32]]

    def possible(
        self, formats: set[str], filters: words.Filters | None, group: int
    ) -> Sequence[Sequence[Literal]] | None:
        """The literals that may be in a row group with batches of these formats; None where of some there is none."""
        found = []
        for alternatives, keys in zip(self.scan.literals, self.keys, strict=True):
            left = [
                literal
                for literal, key in zip(alternatives, keys, strict=True)
                if (literal.format is None or literal.format.value in formats)
                and (filters is None or filters.may_hold(group, key))
            ]
            if not left:
                return None
            found.append(left)
        return found


class Reader:
    """A lake's folder, read. Safe from any thread; each call sees one frozen moment. StateError: as `Manifest`."""

    def __init__(self, folder: Path, manifest: m.Listed | None = None) -> None:
        self.folder = folder
        self._manifest: m.Listed = manifest or m.Listing(folder)
        self._own = manifest is None

    def close(self) -> None:
        """Let go of the manifest, where it is not somebody else's."""
        if self._own:
            self._manifest.close()

    def stored(self) -> Mapping[m.StreamName, Ranges]:
        """The numbers that were ever stored, by host id and stream."""
        with self._manifest.reading() as connection:
            names = m.streams(connection)
            return {names[stream]: found for stream, found in m.ranges(connection).items()}

    def dropped(self) -> Sequence[Dropped]:
        """Every known gap, oldest first."""
        with self._manifest.reading() as connection:
            return [dropped for _, dropped in m.all_dropped(connection)]

    def files(self) -> list[Path]:
        """The live data files, in ingest order: all that other tools must read, and nothing twice."""
        with self._manifest.reading() as connection:
            return [self.folder / file.path for file in m.live_files(connection) if file.bytes]

    def last(self) -> int:
        """The highest sequence number that was ever given; 0 = none."""
        with self._manifest.reading() as connection:
            return m.next_sequence(connection) - 1

    def read(self, after: int, limit: int) -> list[Taken]:
        """At most `limit` batches behind sequence number `after`, in ingest order."""
        try:
            return self._taken(after, limit)
        except FileNotFoundError:  # replaced, and the grace was over
            return self._taken(after, limit)

    def _taken(self, after: int, limit: int) -> list[Taken]:
        taken: list[Taken] = []
        with self._manifest.reading() as connection:
            names = m.streams(connection)
            chosen: list[tuple[m.File, Contents, Int64]] = []
            wanted = limit
            for file in m.live_files(connection, after, most=max(limit, 0)):
                held = m.contents(connection, file.id) if wanted > 0 else None
                if held is None:
                    break
                places = np.flatnonzero(held.sequence > after)[:wanted]
                chosen.append((file, held, places))
                wanted -= len(places)
        for file, held, places in chosen:
            groups = held.group_of()
            for group in np.unique(groups[places]):
                mine = places[groups[places] == group]
                given = any(held.shapes[int(held.shape[place])].given for place in mine)
                table = self._group(file.path, int(group), needed(given))
                for place in mine.tolist():
                    rows = table.slice(int(held.rows[place] - held.groups[group]), int(held.records[place]))
                    taken.append(Taken(int(held.sequence[place]), _key(names, held, place), rebuilt(rows, held, place)))
        return taken

    def scan(self, scan: Scan) -> Iterator[Part]:
        """Every record that may match, batch by batch; records that cannot are left out."""
        asked = self._asked(scan)
        for unit in self._walk(asked):
            if scan.stop():
                return
            try:
                parts = list(self._parts(asked, unit))
            except FileNotFoundError:  # replaced, and the grace was over
                parts = [part for other in self._instead(asked, unit) for part in self._parts(asked, other)]
            yield from parts

    def _parts(self, asked: _Asked, unit: _Unit) -> Iterator[Part]:
        scan = asked.scan
        table = self._group(unit.path, unit.group, ["time", "raw"] if scan.literals else ["time"])
        time, hit = _hits(scan, unit, table)
        if not hit.any():
            return
        given = any(unit.held.shapes[int(unit.held.shape[place])].given for place in unit.places)
        missing = [name for name in needed(given) if name not in table.column_names]
        sizes = lengths(table.column("raw")) if "raw" in table.column_names else None
        rest = self._group(unit.path, unit.group, missing, sizes)
        for name in missing:
            table = table.append_column(name, rest.column(name))
        places = unit.places[::-1] if scan.newest_first else unit.places
        newest = max(unit.left, unit.newest)
        for place in places.tolist():
            first = int(unit.held.rows[place] - unit.held.groups[unit.group])
            rows = np.flatnonzero(hit[first : first + int(unit.held.records[place])])
            if not len(rows):
                continue
            batch = rebuilt(table.take(pa.array(rows + first)), unit.held, place)
            sequence = int(unit.held.sequence[place])
            yield Part(_key(asked.names, unit.held, place), sequence, batch, rows, time[rows + first], newest)

    def columns(self, scan: Scan, names: Sequence[str]) -> Iterator[Any]:
        """Header columns (HEADER_COLUMNS) of the candidates as Arrow tables; raw is read for literals only."""
        unknown = set(names) - set(HEADER_COLUMNS)
        if unknown:
            raise ValueError(f"no header columns: {sorted(unknown)}")
        asked = self._asked(scan)
        wanted = sorted({*names, "time", *(["raw"] if scan.literals else [])})
        for unit in self._walk(asked):
            if scan.stop():
                return
            try:
                tables = [self._chosen(scan, unit, wanted)]
            except FileNotFoundError:  # replaced, and the grace was over
                tables = [self._chosen(scan, other, wanted) for other in self._instead(asked, unit)]
            yield from (table.select(list(names)) for table in tables if len(table))

    def _chosen(self, scan: Scan, unit: _Unit, columns: Sequence[str]) -> Any:
        table = self._group(unit.path, unit.group, columns)
        return table.filter(pa.array(_hits(scan, unit, table)[1]))

    def sql_view(self) -> Any:
        """A DuckDB connection with the view `events` over the live files, which can reach nothing else; close it."""
        import duckdb
        import pyarrow.dataset as ds

        connection = duckdb.connect()
        for name, value in (("enable_external_access", "false"), ("python_enable_replacements", "false")):
            connection.execute(f"SET {name} = {value}")
        # A data set and not file names: SQL of others gets no way to the disk.
        from vedette.store.lake.columns import SCHEMA

        files = [str(path) for path in self.files()]
        events = ds.dataset(files, schema=SCHEMA, format="parquet") if files else SCHEMA.empty_table()
        connection.register("events", events)
        connection.execute("SET lock_configuration = true")
        return connection

    def _group(self, path: str, group: int, columns: Sequence[str], sizes: Int64 | None = None) -> Any:
        if path.startswith("empty/"):  # batches without a record
            from vedette.store.lake.columns import SCHEMA

            return SCHEMA.empty_table().select(list(columns))
        with pq.ParquetFile(str(self.folder / path)) as file:
            return read_group(file, group, columns, sizes).combine_chunks()

    def _asked(self, scan: Scan) -> _Asked:
        with self._manifest.reading() as connection:
            names = m.streams(connection)
        streams = np.asarray([stream for stream, name in names.items() if _covers(scan, name)], np.int64)
        keys = [[words.keys_of(one.text, whole=one.whole) for one in alternatives] for alternatives in scan.literals]
        return _Asked(scan, names, streams, keys)

    def _walk(self, asked: _Asked) -> Iterator[_Unit]:
        """The row groups to look at, of the files that are live now; what a file holds is looked up when it is due."""
        scan = asked.scan
        with self._manifest.reading() as connection:
            live = m.live_files(connection)
        live = [file for file in live if file.records and file.time_max >= scan.since and file.time_min < scan.until]
        return self._newest_first(asked, live) if scan.newest_first else self._in_order(asked, live)

    def _in_order(self, asked: _Asked, live: Sequence[m.File]) -> Iterator[_Unit]:
        for file in live:
            if asked.scan.stop():
                return
            yield from self._units(asked, file)

    def _newest_first(self, asked: _Asked, live: list[m.File]) -> Iterator[_Unit]:
        live.sort(key=lambda file: file.time_max, reverse=True)
        waiting: list[tuple[int, int, _Unit]] = []
        found = 0
        for place in range(len(live) + 1):
            if asked.scan.stop():
                return
            floor = live[place].time_max if place < len(live) else BEGINNING
            while waiting and (place == len(live) or -waiting[0][0] >= floor):
                unit = heappop(waiting)[2]
                unit.left = max(floor, -waiting[0][0] if waiting else BEGINNING)
                yield unit
            if place < len(live):
                for unit in self._units(asked, live[place]):
                    found += 1
                    heappush(waiting, (-unit.newest, found, unit))

    def _units(self, asked: _Asked, file: m.File) -> list[_Unit]:
        with self._manifest.reading() as connection:
            held = m.contents(connection, file.id)
        if held is None:  # replaced, and the grace was over
            return self._within(asked, file.first, file.last)
        return self._fitting(asked, file, held, np.ones(len(held), np.bool_))

    def _instead(self, asked: _Asked, gone: _Unit) -> list[_Unit]:
        """Where the batches of a unit lie now that its file is gone."""
        sequences = gone.held.sequence[gone.places]
        units = self._within(asked, int(sequences[0]), int(sequences[-1]), sequences)
        for unit in units:
            unit.left = gone.left
        return units

    def _within(self, asked: _Asked, first: int, last: int, only: Int64 | None = None) -> list[_Unit]:
        with self._manifest.reading() as connection:
            live = m.live_files(connection, first - 1, through=last)
            found = [(file, m.contents(connection, file.id)) for file in live]
        units = []
        for file, held in found:
            if held is None:
                continue
            mine = (held.sequence >= first) & (held.sequence <= last)
            if only is not None:
                mine &= np.isin(held.sequence, only)
            units += self._fitting(asked, file, held, mine)
        return units

    def _fitting(self, asked: _Asked, file: m.File, held: Contents, mine: Bool) -> list[_Unit]:
        scan = asked.scan
        fits = mine & (held.records > 0) & (held.time_max >= scan.since) & (held.time_min < scan.until)
        fits &= np.isin(held.stream, asked.streams)
        groups = held.group_of()
        some = np.unique(groups[fits]).tolist()
        filters = None
        if some and scan.literals and file.tier:
            filters = words.load(side_of(self.folder / file.path), len(held.groups))
        units = []
        for group in some:
            places = np.flatnonzero(fits & (groups == group))
            formats = {held.shapes[shape].format for shape in np.unique(held.shape[places]).tolist()}
            literals = asked.possible(formats, filters, group)
            if literals is not None:
                units.append(_Unit(file.path, held, group, places, int(held.time_max[places].max()), literals))
        return units


def _hits(scan: Scan, unit: _Unit, table: Any) -> tuple[Int64, Bool]:
    """`@timestamp` of every record of the row group, and which of them may match."""
    time = numbers(table.column("time"))
    hit = np.zeros(len(time), np.bool_)
    for place in unit.places.tolist():
        first = int(unit.held.rows[place] - unit.held.groups[unit.group])
        hit[first : first + int(unit.held.records[place])] = True
    hit &= (time >= scan.since) & (time < scan.until)
    looked = _Looked(table.column("raw")) if unit.literals else None
    for alternatives in unit.literals:
        if looked is not None and hit.any():
            hit &= looked.occurring(alternatives)
    return time, hit


def _covers(scan: Scan, name: m.StreamName) -> bool:
    host, stream = name
    if scan.hosts and host not in scan.hosts:
        return False
    return not scan.streams or stream in scan.streams or stream.split("#")[0] in scan.streams


def _key(names: Mapping[int, m.StreamName], held: Contents, place: int) -> BatchKey:
    return BatchKey(*names[int(held.stream[place])], int(held.number[place]))


class _Looked:
    """The records of a row group, looked through; their letters are made small once."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._low: Any = None

    def occurring(self, alternatives: Sequence[Literal]) -> Bool:
        """bool[n]: the records in which one of these stands."""
        found = np.zeros(len(self._raw), np.bool_)
        for literal in alternatives:
            if literal.cased or not re.search(rb"[A-Za-z]", literal.text):
                hits = pc.match_substring(self._raw, literal.text)
            else:
                if self._low is None:
                    self._low = _lowered(self._raw)
                hits = pc.match_substring(self._low, literal.text.lower())
            found |= hits.to_numpy()
        return found


def _lowered(raw: Any) -> Any:
    chunks = []
    for chunk in raw.chunks:
        validity, offsets, data = chunk.buffers()
        folded = np.frombuffer(data, np.uint8).copy() if data is not None else np.empty(0, np.uint8)
        folded += ((folded - np.uint8(65)) < 26).view(np.uint8) << np.uint8(5)
        chunks.append(
            pa.Array.from_buffers(
                chunk.type, len(chunk), [validity, offsets, pa.py_buffer(folded)], offset=chunk.offset
            )
        )
    return pa.chunked_array(chunks, raw.type)
