"""Records whose fields are given, whatever their bytes: what the engine is tried on apart from every parser.
Counterpart: the reference judges the same records; `vedette.parsers` make such tables from real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from vedette.detections.matches import Matches
from vedette.model.batch import Batch, Origin, Trust
from vedette.model.events import Column, Kinds, RecordKind, Table, Value, identity
from vedette.text.escape import decode

Fields = dict[str, Value]


@dataclass(frozen=True)
class Record:
    """What a parser says of one record."""

    fields: Fields
    kind: RecordKind
    line: bytes
    strings: tuple[str, ...] | None = None
    """What keywords look at; None: the message, which is the line."""

    @property
    def looked_at(self) -> tuple[str, ...]:
        return (decode(self.line),) if self.strings is None else self.strings


@dataclass
class GivenParser:
    """Gives what it was told of the records of a batch, by their positions; the bytes say nothing more."""

    records: Sequence[Record] = field(default_factory=list)
    unused: tuple[Value, ...] = ()
    """Values that columns name and no record has."""

    def parse(self, batch: Batch) -> Table:
        rows = [self.records[position] for position in batch.positions.tolist()]
        table = Table(batch, time=batch.positions * 1_000_000, kinds=Kinds.from_kinds([row.kind for row in rows]))
        for name in {name for row in rows for name in row.fields}:
            table.provide(name, lambda name=name: self._column([row.fields.get(name, _GONE) for row in rows]))
        if any(row.strings is not None for row in rows):
            table.provide_strings(lambda wanted: [rows[at].looked_at for at in wanted])
        table.provide("message", lambda: Column.from_values([decode(row.line) for row in rows]))
        return table

    def _column(self, values: Sequence[object]) -> Column:
        known: dict[object, int] = {identity(value): code for code, value in enumerate(self.unused)}
        distinct: list[Value] = list(self.unused)
        codes = []
        for value in values:
            if value is _GONE:
                codes.append(-1)
                continue
            codes.append(known.setdefault(identity(value), len(distinct)))  # type: ignore[arg-type]
            if len(known) > len(distinct):
                distinct.append(value)  # type: ignore[arg-type]
        return Column(np.asarray(codes, dtype=np.int32), distinct)


_GONE = object()


def batch_of(records: Sequence[Record], first: int = 0, number: int = 0) -> Batch:
    """Records as one batch, their places in `GivenParser.records` from `first`."""
    ends = np.asarray(list(accumulate(len(record.line) + 1 for record in records)), dtype=np.int64) - 1
    return Batch(
        origin=Origin("host-1", "given"),
        number=number,
        block=b"".join(record.line + b"\n" for record in records),
        starts=ends - [len(record.line) for record in records],
        ends=ends,
        positions=np.arange(first, first + len(records), dtype=np.int64),
        read_at=0,
        trust=Trust.ATTESTED,
    )


def said(matches: Matches) -> list[set[int]]:
    """Per matched record the rules that it is given to."""
    found: list[set[int]] = [set() for _ in matches.rows]
    for index, hits in matches.hits.items():
        for at in hits.tolist():
            found[at].add(index)
    return found


def said_by_position(matches: Matches) -> dict[int, set[int]]:
    return dict(zip(matches.position.tolist(), said(matches), strict=True))
