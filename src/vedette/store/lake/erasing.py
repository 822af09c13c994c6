"""Single records leave the lake: their files are written anew without them, and the old ones are gone at once.
Counterpart: `app.erasing` says which and tells the ledger in the same transaction; `spans.erasures` tells searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection

from vedette.model.batch import Batch, Bool, Int64
from vedette.model.shipping import BatchKey
from vedette.store.lake import manifest as m
from vedette.store.lake.arranged import read_group
from vedette.store.lake.columns import SCHEMA, numbers, rebuilt
from vedette.store.lake.contents import Contents
from vedette.store.lake.manifest import ErasedRecords
from vedette.store.lake.rewriting import AT_ONCE, Old, Stop, StoppedError, delete_replaced, rewrite


@dataclass(frozen=True, slots=True)
class Cut:
    """A batch as it is and as it will be. rows: int64, which of its records go, by where they stand in it now."""

    key: BatchKey
    batch: Batch
    rest: Batch
    rows: Int64


Told = Callable[[Connection], None]
Prepare = Callable[[list[Cut]], Told]
"""Looks at what will go from one file, and gives what else belongs in the transaction; raises to have all stay."""


def erase(
    folder: Path,
    manifest: m.Manifest,
    chosen: Mapping[int, Int64],
    now: int,
    prepare: Prepare,
    gone: list[ErasedRecords],
    stop: Stop = lambda: False,
) -> None:
    """Take records out of batches, file by file; what went is appended to `gone`. Whoever calls holds `alone`.

    chosen: sequence number of a batch -> which of its records, by where they stand in it now. Each file is one
    transaction: killed in between, those before are done and the others as they were. StateError, OSError: likewise.
    """
    # What compaction replaced lately holds them too.
    delete_replaced(folder, manifest, now, grace=AT_ONCE)
    with manifest.reading() as connection:
        names = m.streams(connection)
        live = m.live_files(connection)
    try:
        for file in live:
            mine = [one for one in chosen if file.first <= one <= file.last]
            if not mine or not file.records:
                continue
            if stop():
                break
            with manifest.reading() as connection:
                held = m.contents(connection, file.id)
            if held is None:
                continue
            old, cuts, erased = _without(folder, file, held, names, {one: chosen[one] for one in mine}, now)
            if not cuts:
                continue
            tell = prepare(cuts)

            def also(connection: Connection, erased: Iterable[ErasedRecords] = erased, tell: Told = tell) -> None:
                m.add_erased(connection, erased)
                tell(connection)

            rewrite(folder, manifest, [old], tier=file.tier, now=now, also=also, stop=stop)
            gone += erased
    except StoppedError:
        pass
    finally:
        delete_replaced(folder, manifest, now, grace=AT_ONCE)


def _without(
    folder: Path, file: m.File, held: Contents, names: dict[int, m.StreamName], chosen: Mapping[int, Int64], now: int
) -> tuple[Old, list[Cut], list[ErasedRecords]]:
    """The file without these; every batch that loses something is read whole."""
    places = {int(sequence): place for place, sequence in enumerate(held.sequence.tolist()) if sequence in chosen}
    stays = np.ones(int(held.records.sum()), np.bool_)
    after = replace(
        held,
        records=held.records.copy(),
        raw_bytes=held.raw_bytes.copy(),
        time_min=held.time_min.copy(),
        time_max=held.time_max.copy(),
        _rows=None,
    )
    groups, cuts, erased = held.group_of(), [], []
    with pq.ParquetFile(str(folder / file.path)) as opened:
        for group in sorted({int(groups[place]) for place in places.values()}):
            table = read_group(opened, group).combine_chunks()
            for sequence, place in places.items():
                if int(groups[place]) != group:
                    continue
                first, records = int(held.rows[place]), int(held.records[place])
                keep: Bool = np.ones(records, np.bool_)
                keep[chosen[sequence]] = False
                went = records - int(keep.sum())
                if not went:
                    continue
                stays[first : first + records] = keep
                rows = table.slice(first - int(held.groups[group]), records)
                left = rows.filter(pa.array(keep))
                batch = rebuilt(rows, held, place)
                key = BatchKey(*names[int(held.stream[place])], int(held.number[place]))
                rest = rebuilt(left, held, place)
                cuts.append(Cut(key, batch, rest, np.flatnonzero(~keep)))
                erased.append(_erased(int(held.stream[place]), key, went, held, place, now))
                _shrink(after, place, left, rest)
    return Old(file, held, np.ones(len(held), np.bool_), stays, after), cuts, erased


def _erased(stream: int, key: BatchKey, count: int, held: Contents, place: int, now: int) -> ErasedRecords:
    bounds = int(held.time_min[place]), int(held.time_max[place])
    return ErasedRecords(key.host_id, key.stream, key.number, count, *bounds, now, stream)


def _shrink(after: Contents, place: int, left: Any, rest: Batch) -> None:
    time = numbers(left.column("time")) if len(left) else np.zeros(1, np.int64)
    after.records[place] = len(left)
    after.raw_bytes[place] = int((rest.ends - rest.starts).sum()) if len(left) else 0
    after.time_min[place], after.time_max[place] = int(time.min()), int(time.max())


def names_in(path: Path) -> dict[str, set[str]]:
    """The texts in the dictionaries of a data file, by column: what its bytes hold, used or not."""
    columns = [name for name in SCHEMA.names if pa.types.is_dictionary(SCHEMA.field(name).type)]
    table = pq.read_table(str(path), columns=columns, read_dictionary=columns)
    return {
        name: {text for chunk in table.column(name).chunks for text in chunk.dictionary.to_pylist()} for name in columns
    }
