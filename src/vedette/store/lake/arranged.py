"""How the rows of a compacted file lie: what is alike together, and no position that follows from the one before.
Counterpart: `rewriting` arranges a row group before it is written; whoever reads one gets it back in ingest order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vedette.model.batch import Bool, Int64
from vedette.store.lake.columns import lengths, numbers

_ORDER = "place"
_ALIKE = ("host", "program")
"""The last one first: lines of one program begin alike, and those of one host more so."""


def arranged(table: Any) -> Any:
    """The rows of a row group in ingest order, as they are to be written: by program and host, in ingest order within.

    A position that follows from its neighbour is null: the record begins one byte behind the end of the one before
    (a file), or counts one more (a numbered stream).
    """
    if not len(table):
        return table
    position = numbers(table.column("position"))
    known = _follows(position, lengths(table.column("raw")), _firsts(table))
    table = _with(table, "position", pa.array(position, pa.int64(), mask=known))
    table = _with(table, _ORDER, pa.array(np.arange(len(table), dtype=np.int32)))
    order = np.lexsort([_codes(table.column(name)) for name in _ALIKE])
    return table if (np.diff(order) == 1).all() else table.take(pa.array(order))


def read_group(file: Any, group: int, columns: Sequence[str] | None = None, sizes: Int64 | None = None) -> Any:
    """A row group of a ParquetFile in ingest order, all positions told; `columns`: those only, None = all.

    sizes: bytes of its records in ingest order, where they are known already; else positions take reading `raw`.
    """
    if _ORDER not in file.schema_arrow.names:  # of a version that wrote them as they came
        return file.read_row_group(group, columns=None if columns is None else list(columns))
    if columns is None:
        return _restored(file.read_row_group(group), sizes)
    more = {_ORDER}
    if "position" in columns:
        more |= {"sequence"} if sizes is not None else {"sequence", "raw"}
    more -= set(columns)
    table = file.read_row_group(group, columns=[*columns, *sorted(more)])
    return _restored(table, sizes).select(list(columns))


def _restored(table: Any, sizes: Int64 | None) -> Any:
    if not len(table):
        return table
    order = np.argsort(numbers(table.column(_ORDER)), kind="stable")
    if not (np.diff(order) == 1).all():
        table = table.take(pa.array(order))
    table = table.combine_chunks()
    if "position" not in table.column_names or not table.column("position").null_count:
        return table
    position = table.column("position")
    told = ~position.is_null().to_numpy()
    found = _filled(numbers(position), told, lengths(table.column("raw")) if sizes is None else sizes, _firsts(table))
    return _with(table, "position", pa.array(found, pa.int64()))


def _with(table: Any, name: str, values: Any) -> Any:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), values)


def _firsts(table: Any) -> Int64:
    """The first row of each batch; rows in ingest order."""
    sequence = numbers(table.column("sequence"))
    return np.concatenate([np.zeros(1, np.int64), np.flatnonzero(np.diff(sequence)) + 1])


def _follows(position: Int64, sizes: Int64, firsts: Int64) -> Bool:
    """Which positions need not be told."""
    bytewise, counted = np.zeros(len(position), np.bool_), np.zeros(len(position), np.bool_)
    bytewise[1:] = position[1:] == position[:-1] + sizes[:-1] + 1
    counted[1:] = position[1:] == position[:-1] + 1
    bytewise[firsts] = False
    counted[firsts] = True
    counts = _each(np.logical_and.reduceat(counted, firsts), firsts, len(position))
    inner = _inner(firsts, len(position))
    known = np.where(counts, inner, bytewise)
    # What would be read as counted and is not is told whole.
    wrong = _each(_counted(position, ~known, firsts), firsts, len(position)) & ~counts
    return known & ~wrong


def _filled(position: Int64, told: Bool, sizes: Int64, firsts: Int64) -> Int64:
    rows = np.arange(len(position))
    counts = _each(_counted(position, told, firsts), firsts, len(position))
    before = np.cumsum(sizes + 1) - (sizes + 1)
    steps = np.where(counts, rows, before)
    # The first of each batch is always told.
    anchor = np.maximum.accumulate(np.where(told, rows, 0))
    return position[anchor] + steps - steps[anchor]


def _counted(position: Int64, told: Bool, firsts: Int64) -> Bool:
    """Which batches tell the first and the last alone, and these are as far apart as they are in number."""
    n = len(position)
    lasts = np.append(firsts[1:], n) - 1
    hidden: Bool = np.logical_or.reduceat(told & _inner(firsts, n), firsts)
    alone: Bool = ~hidden & told[lasts] & (lasts - firsts >= 2) & (position[lasts] - position[firsts] == lasts - firsts)
    return alone


def _inner(firsts: Int64, n: int) -> Bool:
    inner = np.ones(n, np.bool_)
    inner[firsts] = False
    inner[np.append(firsts[1:], n) - 1] = False
    return inner


def _each(batches: Bool, firsts: Int64, n: int) -> Bool:
    return np.repeat(batches, np.diff(np.append(firsts, n)))


def _codes(column: Any) -> Int64:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    return np.asarray(numbers(array.indices.fill_null(-1)), np.int64)
