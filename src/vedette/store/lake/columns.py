"""Batches as Arrow columns and back: raw bytes beside the header columns, no loop over records either way.
Counterpart: `files` writes the tables made here, `reader` rebuilds batches from them byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vedette.model.batch import Batch, GivenHeader, Int32, Int64, Origin, RecordFormat, Trust, UInt8
from vedette.model.events import Column
from vedette.model.shipping import BatchKey, Headers
from vedette.store.lake.contents import MIXED, Contents, Shape

NO_SEVERITY = 255
_TIME = pa.timestamp("us", tz="UTC")
_NAME = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        pa.field("time", _TIME),
        pa.field("created", _TIME),
        pa.field("ingested", _TIME),
        pa.field("host_id", _NAME),
        pa.field("stream", _NAME),
        pa.field("number", pa.int64()),
        # Of the batch, and of the record in its row group: by both the records of a lake stand as they came.
        pa.field("sequence", pa.int64()),
        pa.field("place", pa.int32()),
        pa.field("generation", _NAME),
        pa.field("position", pa.int64()),
        pa.field("host", _NAME),
        pa.field("program", _NAME),
        pa.field("severity", pa.uint8()),
        pa.field("format", _NAME),
        pa.field("trust", pa.uint8()),
        pa.field("raw", pa.binary()),
        pa.field("pid", pa.int64()),
        # What a source said of time, host and program, where the header columns say something else.
        pa.field("given_time", _TIME),
        pa.field("given_host", _NAME),
        pa.field("given_program", _NAME),
    ]
)
HEADER_COLUMNS = tuple(
    name for name in SCHEMA.names if name not in {"raw", "given_time", "given_host", "given_program"}
)
_REBUILDING = ("position", "trust", "raw", "time", "host", "program", "pid", *SCHEMA.names[-3:])


class Names(msgspec.Struct, frozen=True):
    """Texts, one a record: `codes[i]` (int32) indexes `values`, -1 = none."""

    codes: Int32
    values: list[str]

    @classmethod
    def of(cls, column: Column) -> Names:
        """A header column as it is kept."""
        values = [value if isinstance(value, str) else str(value) for value in column.values]
        return cls(np.asarray(column.codes, np.int32), values)

    def texts(self) -> list[str]:
        """One a record, "" for none."""
        table = np.empty(len(self.values) + 1, object)
        table[:-1] = self.values
        table[-1] = ""
        made: list[str] = table[self.codes].tolist()
        return made


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch on its way into a file: all that is kept of its records, and no more of its block.

    raw: the records (binary[n]). given: the header columns of the source's own, None where they say nothing new.
    """

    key: BatchKey
    shape: Shape
    raw: Any
    raw_bytes: int
    time: Int64
    host: Names
    program: Names
    severity: UInt8
    position: Int64
    trust: UInt8 | None
    pid: Int64 | None
    given: tuple[Int64, Names, Names] | None
    read_at: int
    origin_number: int
    cursor: str
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def weight(self) -> int:
        """About how many bytes this holds in memory."""
        return self.raw_bytes + 64 * len(self) + 1024


def rows_of(key: BatchKey, batch: Batch, headers: Headers) -> Rows:
    """What is kept of a batch; ValueError where its parts do not fit together."""
    n = len(batch)
    sizes = [len(batch.ends), len(batch.positions), len(headers.time), len(headers.severity)]
    sizes += [len(headers.host.codes), len(headers.program.codes)]
    if not isinstance(batch.trust, Trust):
        sizes.append(len(batch.trust))
    if batch.header is not None:
        given = batch.header
        sizes += [len(given.time), len(given.host), len(given.program), len(given.pid)]
    if any(size != n for size in sizes):
        raise ValueError(f"a batch of {n} records whose columns have {sizes} entries")
    host, program = Names.of(headers.host), Names.of(headers.program)
    time = np.asarray(headers.time, np.int64)
    beside, pid, kind = None, None, 0
    if batch.header is not None:
        pid, kind = np.asarray(batch.header.pid, np.int64), 1
        if not (
            np.array_equal(batch.header.time, time)
            and batch.header.host == host.texts()
            and batch.header.program == program.texts()
        ):
            kind = 2
            beside = np.asarray(batch.header.time, np.int64), _names(batch.header.host), _names(batch.header.program)
    trust = None if isinstance(batch.trust, Trust) else np.asarray(batch.trust, np.uint8)
    shape = Shape(
        batch.origin.host_id,
        batch.origin.source,
        batch.origin.generation,
        batch.format.value,
        int(batch.trust) if isinstance(batch.trust, Trust) else MIXED,
        kind,
        batch.timezone,
        batch.year,
        batch.spooled,
    )
    raw = _raw_of(batch)
    return Rows(
        key=key,
        shape=shape,
        raw=raw,
        raw_bytes=int((batch.ends - batch.starts).sum()) if n else 0,
        time=time,
        host=host,
        program=program,
        severity=np.asarray(headers.severity, np.uint8),
        position=np.asarray(batch.positions, np.int64),
        trust=trust,
        pid=pid,
        given=beside,
        read_at=batch.read_at,
        origin_number=batch.number,
        cursor=batch.cursor,
        dropped=dict(batch.dropped),
    )


def _names(texts: list[str]) -> Names:
    encoded = pa.array(texts, pa.string()).dictionary_encode()
    return Names(_numbers(encoded.indices).astype(np.int32), encoded.dictionary.to_pylist())


def _raw_of(batch: Batch) -> Any:
    n = len(batch)
    starts, ends = np.asarray(batch.starts), np.asarray(batch.ends)
    if n == 0:
        return pa.array([], pa.binary())
    # Records and what lies between them take turns as one column; every second of it is a record.
    turns = np.empty(2 * n + 1, np.int64)
    turns[0:-1:2], turns[1::2], turns[-1] = starts, ends, len(batch.block)
    if turns[0] < 0 or (np.diff(turns) < 0).any() or len(batch.block) >= 2**31:
        return pa.array([batch.raw(row) for row in range(n)], pa.binary())
    buffers = [None, pa.py_buffer(turns.astype(np.int32)), pa.py_buffer(batch.block)]
    return pa.Array.from_buffers(pa.binary(), 2 * n, buffers).take(pa.array(np.arange(0, 2 * n, 2)))


def contents_of(rows: Sequence[Rows], streams: Sequence[int], first: int, ingested: int) -> Contents:
    """What a file of these batches holds; `first` is the sequence number of the first, the others follow."""
    n = len(rows)
    shapes: dict[Shape, int] = {}
    bounds = [(int(one.time.min()), int(one.time.max())) if len(one) else (0, 0) for one in rows]
    return Contents(
        sequence=np.arange(first, first + n, dtype=np.int64),
        stream=np.asarray(streams, np.int64),
        number=np.fromiter((one.key.number for one in rows), np.int64, n),
        records=np.fromiter((len(one) for one in rows), np.int64, n),
        raw_bytes=np.fromiter((one.raw_bytes for one in rows), np.int64, n),
        time_min=np.fromiter((low for low, _ in bounds), np.int64, n),
        time_max=np.fromiter((high for _, high in bounds), np.int64, n),
        ingested=np.full(n, ingested, np.int64),
        read_at=np.fromiter((one.read_at for one in rows), np.int64, n),
        origin_number=np.fromiter((one.origin_number for one in rows), np.int64, n),
        shape=np.fromiter((shapes.setdefault(one.shape, len(shapes)) for one in rows), np.int64, n),
        shapes=list(shapes),
        groups=np.empty(0, np.int64),
        cursors={place: one.cursor for place, one in enumerate(rows) if one.cursor},
        dropped={place: one.dropped for place, one in enumerate(rows) if one.dropped},
    )


def table_of(rows: Sequence[Rows], ingested: int, first: int) -> Any:
    """The records of batches as one table of SCHEMA; `first`: sequence number of the first batch."""
    counts = np.fromiter((len(one) for one in rows), np.int64, len(rows))
    total = int(counts.sum())

    def each(values: Sequence[int]) -> Int64:
        return np.repeat(np.asarray(values, np.int64), counts)

    def whole(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in rows])

    def same(texts: Sequence[str]) -> Any:
        known: dict[str, int] = {}
        codes = np.asarray([known.setdefault(text, len(known)) for text in texts], np.int32)
        return _dictionary(np.repeat(codes, counts), list(known))

    def optional(parts: Sequence[Int64 | None]) -> Any:
        if all(part is None for part in parts):
            return pa.nulls(total, pa.int64())
        filled = [np.zeros(n, np.int64) if part is None else part for part, n in zip(parts, counts, strict=True)]
        missing = np.repeat([part is None for part in parts], counts)
        return pa.array(np.concatenate(filled), pa.int64(), mask=missing)

    severity = whole("severity")
    trust = [
        one.trust if one.trust is not None else np.full(len(one), one.shape.trust, np.uint8)  #
        for one in rows
    ]
    columns = {
        "time": _times(whole("time")),
        "created": _times(each([one.read_at for one in rows])),
        "ingested": _times(np.full(total, ingested, np.int64)),
        "host_id": same([one.key.host_id for one in rows]),
        "stream": same([one.key.stream for one in rows]),
        "number": pa.array(each([one.key.number for one in rows])),
        "sequence": pa.array(each(range(first, first + len(rows)))),
        "place": pa.array(np.arange(total, dtype=np.int32)),
        "generation": same([one.shape.generation for one in rows]),
        "position": pa.array(whole("position")),
        "host": _joined([one.host for one in rows]),
        "program": _joined([one.program for one in rows]),
        "severity": pa.array(severity, pa.uint8(), mask=severity == NO_SEVERITY),
        "format": same([one.shape.format for one in rows]),
        "trust": pa.array(np.concatenate(trust)),
        "raw": pa.chunked_array([one.raw for one in rows], pa.binary()),
        "pid": optional([one.pid for one in rows]),
        "given_time": optional([one.given[0] if one.given else None for one in rows]).cast(_TIME),
        "given_host": _joined([one.given[1] if one.given else _none(len(one)) for one in rows]),
        "given_program": _joined([one.given[2] if one.given else _none(len(one)) for one in rows]),
    }
    return pa.table(columns, schema=SCHEMA)


def _none(n: int) -> Names:
    return Names(np.full(n, -1, np.int32), [])


def _joined(parts: Sequence[Names]) -> Any:
    known: dict[str, int] = {}
    codes = []
    for part in parts:
        # One more entry, so that -1 stays -1.
        own = np.asarray([*(known.setdefault(text, len(known)) for text in part.values), -1], np.int32)
        codes.append(own[part.codes])
    return _dictionary(np.concatenate(codes), list(known))


def _dictionary(codes: Int32, values: list[str]) -> Any:
    indices = pa.array(codes, pa.int32(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string()))


def _times(us: Int64) -> Any:
    return pa.array(np.asarray(us, np.int64)).view(_TIME)


def _numbers(column: Any) -> Any:
    """A column without nulls (or whose nulls do not matter) as numpy, without a copy where it is one piece."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunks
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    if array.null_count:
        array = pc.fill_null(array, 0)
    return array.to_numpy(zero_copy_only=False)


numbers = _numbers


def lengths(raw: Any) -> Int64:
    """Bytes of each record of a binary column."""
    return np.asarray(_numbers(pc.binary_length(raw)), np.int64)


def spans(raw: Any) -> tuple[bytes, Int64, Int64]:
    """The records of a binary column as a block with a newline behind each, and where they start and end in it."""
    n = len(raw)
    array = raw.combine_chunks() if isinstance(raw, pa.ChunkedArray) else raw
    if n == 0:
        return b"", np.empty(0, np.int64), np.empty(0, np.int64)
    # An empty record at the end gives the last one its newline too.
    ended = pa.concat_arrays([array, pa.array([b""], array.type)])
    block: bytes = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, n + 1], pa.int32()), ended), b"\n")[0].as_py()
    sizes = lengths(array)
    ends = np.cumsum(sizes + 1) - 1
    return block, ends - sizes, ends


def rebuilt(table: Any, contents: Contents, place: int) -> Batch:
    """Batch `place` of `contents` from its rows (all of them, or those that were chosen).

    What lies between records in a source's block is not kept: here it is a newline behind each.
    """
    shape = contents.shapes[int(contents.shape[place])]
    block, starts, ends = spans(table.column("raw"))
    header = None
    if shape.given:
        time, host, program = (
            ("time", "host", "program") if shape.given == 1 else ("given_time", "given_host", "given_program")
        )
        header = GivenHeader(
            time=_numbers(table.column(time)).astype(np.int64),
            host=_texts(table.column(host)),
            program=_texts(table.column(program)),
            pid=_numbers(table.column("pid")).astype(np.int64),
        )
    trust: Trust | UInt8 = Trust(shape.trust) if shape.trust != MIXED else _numbers(table.column("trust"))
    return Batch(
        origin=Origin(shape.host_id, shape.source, shape.generation),
        number=int(contents.origin_number[place]),
        block=block,
        starts=starts,
        ends=ends,
        positions=_numbers(table.column("position")).astype(np.int64),
        read_at=int(contents.read_at[place]),
        format=RecordFormat(shape.format),
        trust=trust,
        header=header,
        timezone=shape.timezone,
        year=shape.year,
        spooled=shape.spooled,
        cursor=contents.cursors.get(place, ""),
        dropped=dict(contents.dropped.get(place, {})),
    )


def _texts(column: Any) -> list[str]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_dictionary(array.type):
        return ["" if text is None else text for text in array.to_pylist()]
    codes = _numbers(pc.fill_null(array.indices, -1)).astype(np.int32)
    return Names(codes, array.dictionary.to_pylist()).texts()


def needed(given: bool) -> list[str]:
    """The columns that rebuilding takes; `given`: whether any of the batches has a header of its own."""
    return list(_REBUILDING) if given else ["position", "trust", "raw"]
