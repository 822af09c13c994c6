"""When stored batches are of and what was let go, from the manifest alone: no data file is opened.
Counterpart: `app.coverage` tells from it what time a missing number stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vedette.model.shipping import BatchKey
from vedette.store.lake import listing as m
from vedette.store.lake.contents import Contents
from vedette.store.lake.reader import Reader


@dataclass(frozen=True, slots=True)
class Span:
    """Earliest and latest `@timestamp` of a batch (`read_at` where it has no record), and its own; microseconds."""

    earliest: int
    latest: int
    read_at: int


def spans(reader: Reader, keys: Iterable[BatchKey]) -> dict[BatchKey, Span]:
    """Of these batches, as far as they are here."""
    found: dict[BatchKey, Span] = {}
    opened: dict[int, Contents | None] = {}
    with reader._manifest.reading() as connection:
        ids = {name: stream for stream, name in m.streams(connection).items()}
        for key in keys:
            stream = ids.get((key.host_id, key.stream), 0)
            if not stream:
                continue
            for file in m.files_with(connection, stream, key.number):
                if file not in opened:
                    opened[file] = m.contents(connection, file)
                held = opened[file]
                if held is None:
                    continue
                places = np.flatnonzero((held.stream == stream) & (held.number == key.number))
                if len(places):
                    found[key] = _span(held, int(places[0]))
    return found


def _span(held: Contents, place: int) -> Span:
    read_at = int(held.read_at[place])
    if not held.records[place]:
        return Span(read_at, read_at, read_at)
    return Span(int(held.time_min[place]), int(held.time_max[place]), read_at)


def tombstones(reader: Reader) -> Sequence[m.Tombstone]:
    """Everything that was let go on purpose, in that order."""
    with reader._manifest.reading() as connection:
        return m.all_tombstones(connection)


def erasures(reader: Reader, since: int, until: int) -> Sequence[m.ErasedRecords]:
    """Single records that were erased on request, of batches with a record in since <= `@timestamp` < until."""
    with reader._manifest.reading() as connection:
        return m.all_erased(connection, since, until)
