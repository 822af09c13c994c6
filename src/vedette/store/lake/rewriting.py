"""Writes what several files hold into one, a row group at a time, and swaps them in one transaction.
Counterpart: `compaction` and `retention` say which files and batches; readers of the old ones are not disturbed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection

from vedette.model.batch import Bool, Int64
from vedette.model.clock import HOUR, MINUTE
from vedette.store.lake import files, words
from vedette.store.lake import manifest as m
from vedette.store.lake.arranged import arranged, read_group
from vedette.store.lake.columns import SCHEMA
from vedette.store.lake.contents import Contents, joined

LEVEL = 12
"""Of zstd: a file is written so once and read often."""
GRACE = 10 * MINUTE
"""How long a replaced file stays for those who began to read it."""
AT_ONCE = -(1 << 60)
"""As a grace: whenever it was replaced, by whatever clock."""

Also = Callable[[Connection], None]
Stop = Callable[[], bool]


class StoppedError(Exception):
    """The rewriting was told to end; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Old:
    """A live file and which of its batches stay (one bool a batch).

    rows: which of its records stay of those (one bool a record), None = all; after: what is held of them then.
    """

    file: m.File
    held: Contents
    keep: Bool
    rows: Bool | None = None
    after: Contents | None = None


def rewrite(
    folder: Path,
    manifest: m.Manifest,
    old: Sequence[Old],
    *,
    tier: int,
    now: int,
    also: Also | None = None,
    stop: Stop = lambda: False,
) -> int:
    """One file with what stays of adjacent ones, in their stead; its size in bytes, 0 where nothing needs a file.

    Holds no lock but the manifest's own, and that for the swap alone. also: what else belongs in that transaction.
    StateError, OSError or StoppedError: then nothing was changed, and no file is left.
    """
    parts = [(one.after or one.held).chosen(one.keep) for one in old if one.keep.any()]
    held, path, size = None, "", 0
    if parts:
        held = joined(parts)
        held.groups = files.groups_of(held.records, held.raw_bytes)
        name = f"{tier}-{secrets.token_hex(4)}"
        path = files.path_of(old[0].file.hour, int(held.sequence[0]), int(held.sequence[-1]), name)
        if held.records.any():
            bounds = [*held.groups.tolist(), int(held.records.sum())]
            tables = _regrouped(_stopping(_tables(folder, old), stop), np.diff(bounds).tolist())
            tables = map(arranged, tables)
            size = files.write(
                folder, path, tables, level=LEVEL, alike=True, beside=words.words_of, joined=words.encode
            )
        else:
            path = "empty/" + path
    try:
        with manifest.writing() as connection:
            m.replace_files(connection, [one.file.id for one in old], now)
            if held is not None:
                m.add_file(connection, {"path": path, "hour": old[0].file.hour, "bytes": size, "tier": tier}, held)
            if also is not None:
                also(connection)
    except BaseException:
        # A commit that failed may have been kept after all: only what nobody speaks of may go.
        if size:
            with manifest.reading() as connection:
                kept = m.listed(connection, path)
            if not kept:
                files.remove(folder, path)
        raise
    return size


def delete_replaced(folder: Path, manifest: m.Manifest, now: int, grace: int = GRACE) -> int:
    """Delete the files whose grace is over; how many."""
    with manifest.reading() as connection:
        over = m.replaced(connection, now - grace)
    if not over:
        return 0
    for _, path in over:
        files.remove(folder, path)
    files.remove_empty(folder, {path for _, path in over}, now // HOUR)
    with manifest.writing() as connection:
        m.forget_files(connection, [file_id for file_id, _ in over])
    return len(over)


def _tables(folder: Path, old: Sequence[Old]) -> Iterator[Any]:
    for one in old:
        if not one.file.bytes:
            continue
        groups = one.held.group_of()
        with pq.ParquetFile(str(folder / one.file.path)) as file:
            for group in range(len(one.held.groups)):
                mine = (groups == group) & (one.held.records > 0)
                if not one.keep[mine].any():
                    continue
                table = _whole(read_group(file, group), one.held, np.flatnonzero(mine))
                stays = np.repeat(one.keep[mine], one.held.records[mine])
                if one.rows is not None:
                    first = int(one.held.groups[group])
                    stays = stays & one.rows[first : first + len(stays)]
                if not stays.all():
                    table = _only_used(table.filter(pa.array(stays)))
                yield table


def _only_used(table: Any) -> Any:
    """The same rows; names that none of them has any more are in no dictionary, which would be written whole."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            texts = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field, texts.dictionary_encode())
    return table


def _whole(table: Any, held: Contents, places: Int64) -> Any:
    """With the columns that files of an older version lack; where a record stands is told when it is written."""
    if "place" in table.schema.names:
        return table
    sequence = pa.array(np.repeat(held.sequence[places], held.records[places]), pa.int64())
    table = table.append_column("sequence", sequence).append_column("place", pa.nulls(len(table), pa.int32()))
    return table.select(SCHEMA.names)


def _stopping(tables: Iterator[Any], stop: Stop) -> Iterator[Any]:
    for table in tables:
        if stop():
            raise StoppedError
        yield table


def _regrouped(tables: Iterator[Any], sizes: Sequence[int]) -> Iterator[Any]:
    """The same rows in tables of these sizes."""
    waiting: list[Any] = []
    have = 0
    for size in sizes:
        while have < size:
            table = next(tables)
            waiting.append(table)
            have += table.num_rows
        whole = pa.concat_tables(waiting)
        yield whole.slice(0, size).unify_dictionaries().combine_chunks()
        have -= size
        waiting = [whole.slice(size)] if have else []
